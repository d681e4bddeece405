"""The streams of a command beside a pod's processes, and of those processes themselves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import selectors
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator


class Command:
    """A command that is run for ``exec``, in the form of ``runtime.Exec``."""

    def __init__(self, argv: list[str], *, stdin: bool, tty: bool, **popen) -> None:
        """Start it, on a terminal of its own if ``tty``.

        Raises:
            OSError: there is no such command.
        """
        self._terminal = -1
        if tty:
            self._terminal, theirs = pty.openpty()
            streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        else:
            given = subprocess.PIPE if stdin else subprocess.DEVNULL
            streams = {"stdin": given, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._process = subprocess.Popen(
            argv,
            start_new_session=True,
            preexec_fn=_take_terminal if tty else None,
            bufsize=0,
            **streams,
            **popen,
        )
        self._selector = selectors.DefaultSelector()
        if tty:
            os.close(theirs)
            self._selector.register(self._terminal, selectors.EVENT_READ, 1)
        else:
            self._selector.register(self._process.stdout, selectors.EVENT_READ, 1)
            self._selector.register(self._process.stderr, selectors.EVENT_READ, 2)

    def write(self, data: bytes) -> None:
        """Send to its standard input."""
        if self._terminal >= 0:
            os.write(self._terminal, data)
        elif self._process.stdin:
            self._process.stdin.write(data)

    def close_stdin(self) -> None:
        """End its standard input."""
        if self._process.stdin:
            self._process.stdin.close()

    def read(self) -> tuple[int, bytes] | None:
        """Return the next output and its channel, or None at the end."""
        while self._selector.get_map():
            for key, _ in self._selector.select():
                with contextlib.suppress(OSError):  # a terminal ends with an error
                    if data := os.read(key.fd, 32768):
                        return key.data, data
                self._selector.unregister(key.fileobj)
        return None

    def exit_code(self) -> int:
        """Return its exit status, once it has ended."""
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def resize(self, width: int, height: int) -> None:
        """Set the size of its terminal in characters."""
        if self._terminal >= 0:
            size = struct.pack("HHHH", height, width, 0, 0)
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def close(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)


class Attached:
    """What a pod's process writes from now on, and its standard input."""

    def __init__(self, process: subprocess.Popen, lines: Iterator[bytes]) -> None:
        """Join a process whose output is ``lines``."""
        self._process, self._lines, self._closed = process, lines, False

    def write(self, data: bytes) -> None:
        """Send to its standard input."""
        if self._process.stdin:
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def close_stdin(self) -> None:
        """End its standard input."""
        if self._process.stdin:
            self._process.stdin.close()

    def read(self) -> tuple[int, bytes] | None:
        """Return the next output, or None at the end."""
        line = b""
        while line == b"" and not self._closed:
            line = next(self._lines, None)
        return (1, line) if line else None

    def exit_code(self) -> int:
        """Return its exit status, once it has ended."""
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def resize(self, width: int, height: int) -> None:
        """Do nothing: the process has no terminal."""

    def close(self) -> None:
        """Let go of it."""
        self._closed = True


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
