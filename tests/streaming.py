"""What stands in for an Engine in the tests of a node's API: local commands, and a way to pods."""

import contextlib
import fcntl
import os
import pty
import queue
import signal
import socket
import socketserver
import struct
import subprocess
import termios
import threading
import time

from helpers.cluster.agent.runtime import State


class LocalCommand:
    """An Exec: a local process, with pipes or a terminal."""

    def __init__(self, argv, stdin, tty):
        self.said, self.terminal = queue.Queue(16), None
        if tty:
            self.terminal, other = pty.openpty()
            files = {"stdin": other, "stdout": other, "stderr": other}
        else:
            files = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            files["stdin"] = subprocess.PIPE if stdin else subprocess.DEVNULL
        self.process = subprocess.Popen(
            argv, start_new_session=True, preexec_fn=_own_terminal if tty else None, **files
        )
        if tty:
            os.close(other)
            self.outputs = [(1, self.terminal)]
        else:
            out, err = self.process.stdout.fileno(), self.process.stderr.fileno()
            self.outputs = [(1, out), (2, err)]
        self.open, self.closed = len(self.outputs), threading.Event()
        for channel, file in self.outputs:
            threading.Thread(target=self._listen, args=(channel, file), daemon=True).start()

    def _listen(self, channel, file):
        with contextlib.suppress(OSError):
            while data := os.read(file, 16384):
                while not self.closed.is_set():
                    with contextlib.suppress(queue.Full):
                        self.said.put((channel, data), timeout=0.2)
                        break
        while not self.closed.is_set():
            with contextlib.suppress(queue.Full):
                return self.said.put(None, timeout=0.2)

    def write(self, data):
        file = self.process.stdin.fileno() if self.terminal is None else self.terminal
        while data:
            data = data[os.write(file, data) :]

    def close_stdin(self):
        if self.terminal is None:
            self.process.stdin.close()
        else:
            os.write(self.terminal, b"\x04")

    def read(self):
        while not self.closed.is_set() and self.open:
            with contextlib.suppress(queue.Empty):
                if said := self.said.get(timeout=0.2):
                    return said
                self.open -= 1
        return None

    def exit_code(self):
        code = self.process.wait()
        return code if code >= 0 else 128 - code

    def resize(self, width, height):
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def close(self):
        self.closed.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _own_terminal():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class LocalRuntime:
    """A Runtime whose only container is this machine; its log is a file."""

    kind, version = "local", "1"

    def __init__(self, log):
        self.log, self.commands, self.following, self.ended = log, [], 0, False

    def containers(self, uid):
        return {"app": [(0, "before"), (1, "now")], "ended": [(0, "gone")]}

    def state(self, container):
        return State(running=container == "now")

    def exec(self, container, argv, *, stdin, tty):
        self.commands.append(LocalCommand(argv, stdin, tty))
        return self.commands[-1]

    def attach(self, container, *, stdin, tty):
        script = "echo attached; while read line; do echo got $line; done"
        return self.exec(container, ["sh", "-c", script], stdin=stdin, tty=tty)

    def logs(self, container, *, follow=False, tail=None, since=None, timestamps=False, limit=None):
        if container == "before":
            yield b"of the run before\n"
            return
        self.following += 1
        try:
            with self.log.open("rb") as file:
                lines = file.readlines()
                yield b"".join(lines if tail is None else lines[len(lines) - tail :])[:limit]
                while follow and not self.ended:
                    data = file.read()
                    yield data
                    time.sleep(0 if data else 0.02)
        finally:
            self.following -= 1


class Egress(socketserver.ThreadingUnixStreamServer):
    """Dials 127.x.y.z for whoever asks for 10.x.y.z."""

    daemon_threads = True

    def __init__(self, path):
        super().__init__(str(path), _Connect)


class _Connect(socketserver.StreamRequestHandler):
    rbufsize = 0

    def handle(self):
        host, _, port = self.rfile.readline().split()[1].decode().rpartition(":")
        while self.rfile.readline().strip():
            pass
        try:
            host = "127" + host.removeprefix("10") if host.startswith("10.") else host
            there = socket.create_connection((host, int(port)))
        except OSError:
            self.request.sendall(b"HTTP/1.1 502 connection refused\r\n\r\n")
            return
        with there:
            self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            up = threading.Thread(target=_copy, args=(self.request, there), daemon=True)
            up.start()
            _copy(there, self.request)
            up.join()


def _copy(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
