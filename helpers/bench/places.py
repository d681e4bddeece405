"""Where the benchmark runs: a process, a container from scratch, a Docker container, a VM.

A place is a context manager: when it begins, the benchmark's HTTP server starts in it, so that one
can ask it, run commands beside it and count its memory; when it ends, nothing is left.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers import containers, ledger, vm
from helpers.bench.build import BenchError, binary
from helpers.containers import scratch
from helpers.machine import free_ports


def sh(line: str) -> str:
    """Run a shell line on this machine and return what it prints."""
    return _run(["sh", "-c", line])


@dataclass
class Place:
    """A place in which the HTTP server was started; see ``wait``.

    Attributes:
        rung: what it really is: ``process``, ``namespaces``, ``docker``, ``kvm``, ``tcg`` …
        port: where the server answers, on this machine's loopback.
        run: runs the benchmark there with a list of arguments and returns what it prints.
        disk: a folder or a block device there, for the rows about disks.
        pids: returns the processes that the place consists of.
        shell: runs a shell line where these processes are seen.
        boot_seconds: from the start of QEMU until its userspace answered, if it was booted for it.
    """

    rung: str
    port: int
    run: Callable[[list[str]], str]
    disk: str
    pids: Callable[[], list]
    shell: Callable[[str], str] = sh
    boot_seconds: float = 0

    def wait(self, seconds: float = 60) -> None:
        """Wait for the server's first reply.

        Raises:
            BenchError: there is none within that time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), timeout=1) as link,
            ):
                link.sendall(b"GET / HTTP/1.1\r\n\r\n")
                if link.recv(64).startswith(b"HTTP/1.1 200"):
                    return
            time.sleep(0.0005)
        raise BenchError(f"The server ({self.rung}) did not answer within {seconds:.0f} s.")


def memory_mb(places: list[Place]) -> float:
    """Return what these take of the memory: PSS, in which a page that several share counts in part.

    Where the PSS of another user's process may not be read, its RSS stands in.
    """
    numbers = " ".join(str(pid) for place in places for pid in place.pids())
    kilobytes = places[0].shell(
        f"for p in {numbers}; do cat /proc/$p/smaps_rollup 2> /dev/null ||"
        " sed -n 's/^VmRSS/Pss/p' /proc/$p/status; done |"
        " awk '/^Pss:/ { sum += $2 } END { print sum + 0 }'"
    )
    return int(kilobytes) / 1024


@contextlib.contextmanager
def process() -> Iterator[Place]:
    """Run it as an ordinary process."""
    (port,) = free_ports(1)
    server, entry = ledger.spawn("benchmark server", [str(binary()), "serve", str(port)])
    try:
        yield Place("process", port, bench, str(ledger.home()), lambda: [server.pid])
    finally:
        ledger.stop(entry)


@contextlib.contextmanager
def namespaces() -> Iterator[Place]:
    """Run it in a container from scratch, with the network of what is around it."""
    box, (port,) = _box(), free_ports(1)
    address = f"{'0.0.0.0' if box.machine else '127.0.0.1'}:{port}"
    code = "import os, sys, namespaces as n; words = sys.argv[1:];"
    code += "sys.exit(n.run(words[0], words[1:], own_network=False, env=os.environ))"
    line = _python(box, code, "/bench", "serve", address)
    shell = (lambda line: box.machine.run(line).stdout) if box.machine else sh
    server = f"-f '^/bench serve {address}'"

    def run(words: list[str]) -> str:
        done = box.run(_python(box, code, "/bench", *words), timeout=300, check=False)
        return _output("bench", done.returncode, done.stdout, done.stderr)

    outside = None
    if box.machine:
        box.machine.publish(port, port)
        shell(f"{line} > /dev/null 2>&1 &")
    else:
        outside, entry = ledger.spawn("benchmark server", ["sh", "-c", line])
    try:
        yield Place(box.rung, port, run, "/", lambda: shell(f"pgrep {server}").split(), shell)
    finally:
        shell(f"pkill {server} || true")  # with the first process in it, a container ends
        if outside:
            with contextlib.suppress(subprocess.TimeoutExpired):
                outside.wait(2)
            ledger.stop(entry)


@contextlib.contextmanager
def docker() -> Iterator[Place]:
    """Run it in a Docker container that holds nothing else; its disk is a volume."""
    engine, (port,) = containers.engine(), free_ports(1)
    inside = [found for found in vm.running() if engine.rung != "docker" and found.name == "docker"]
    shell = (lambda line: inside[0].run(line).stdout) if inside else sh

    def pids() -> list:  # the server, the shim above it, and the published port's proxy
        pid = docker_command("inspect", "-f", "{{.State.Pid}}", ident)
        line = f"awk '{{ print $4 }}' /proc/{pid}/stat; pgrep -f '[d]ocker-proxy.* {port} ' || true"
        return [pid, *shell(line).split()]

    options = ["-d", "--label", containers.label(), "-p", f"127.0.0.1:{port}:80", "-v", "/disk"]
    ident = docker_command("run", *options, docker_image(), "/bench", "serve", "0.0.0.0:80")
    try:
        run = lambda words: docker_command("exec", ident, "/bench", *words)  # noqa: E731
        yield Place(engine.rung, port, run, "/disk", pids, shell)
    finally:
        docker_command("rm", "-f", "-v", ident)


@contextlib.contextmanager
def machine(memory: int = 128) -> Iterator[Place]:
    """Run it in a virtual machine with so many MB, booted for it; its disk is a virtual one."""
    with _boot(memory=memory, disk_mb=128) as guest:
        place = _of(guest)
        place.boot_seconds = guest.boot_seconds
        yield place


@contextlib.contextmanager
def restored() -> Iterator[Place]:
    """Run it in a virtual machine that is restored from a snapshot in which it ran already."""
    with snapshot().restore() as guest:
        yield _of(guest)


PLACES = {
    "process": process,
    "namespaces": namespaces,
    "docker": docker,
    "vm": machine,
    "vm restored": restored,
}


def place(name: str, **options) -> contextlib.AbstractContextManager[Place]:
    """Begin a place of ``PLACES``."""
    if name not in PLACES:
        raise BenchError(f"There is no place {name!r}; there are: {', '.join(PLACES)}.")
    return PLACES[name](**options)


def snapshot() -> vm.Snapshot:
    """Return a snapshot of a virtual machine in which the server runs, made on first use."""
    folder = ledger.home() / "snapshots" / f"bench-{binary().name}"
    if not (folder / "settings.json").exists():  # the last file of a snapshot
        shutil.rmtree(folder, ignore_errors=True)
        with _boot() as guest:
            _of(guest).wait()
            with ledger.for_all():
                return guest.snapshot(folder.name)
    return vm.Snapshot(folder)


def _box() -> scratch.Place:
    """Return a place for containers from scratch, with the benchmark in their file tree."""
    box = scratch.place(limits=False)
    if box.machine:
        box.machine.copy_in(binary(), f"{box.root}/bench", 0o755)
    else:
        program = Path(box.root, "bench")
        program.unlink(missing_ok=True)  # one that runs may not be written to
        shutil.copy2(binary(), program)
    return box


def _python(box: scratch.Place, code: str, *words: str) -> str:
    """Return a shell line that runs Python code beside ``namespaces.py``."""
    command = [box.python, "-c", code, box.root, *words]
    return f"PYTHONPATH={shlex.quote(str(Path(box.script).parent))} exec {shlex.join(command)}"


def docker_image() -> str:
    """Return the name of an image that holds the benchmark and nothing else, made on first use."""
    name = f"{containers.label().replace('=', '-')}/bench:{binary().name}"
    if not docker_command("images", "-q", name):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(binary(), "bench")
        change = f"LABEL {containers.label()}"
        docker_command("import", "--change", change, "-", name, data=archive.getvalue())
    return name


def start(name: str) -> float:
    """Start a program that ends at once in a new process or container; return the seconds."""
    if name == "namespaces":  # without the start of the Python that makes the container
        box = _box()
        code = "import sys, time, namespaces as n; begin = time.perf_counter();"
        code += "n.run(sys.argv[1], sys.argv[2:]); print(time.perf_counter() - begin)"
        return float(box.run(_python(box, code, "/bench", "true")).stdout)
    command = [str(binary()), "true"]
    if name == "docker":
        image = docker_image()
        command = ["docker", "run", "--rm", "--label", containers.label(), image, "/bench", "true"]
    begin = time.perf_counter()
    _run(command)
    return time.perf_counter() - begin


def bench(words: list[str]) -> str:
    """Run the benchmark on this machine and return what it prints."""
    return _run([str(binary()), *words])


def docker_command(*words: str, data: bytes | None = None) -> str:
    """Run the ``docker`` command and return what it prints, without the last line's end."""
    return _run(["docker", *words], data).strip()


def _run(command: list[str], data: bytes | None = None) -> str:
    done = subprocess.run(command, input=data, capture_output=True)
    return _output(command[0], done.returncode, done.stdout.decode(), done.stderr.decode())


def _output(program: str, status: int, output: str, errors: str) -> str:
    if status:
        last = (errors.strip().splitlines() or [f"status {status}"])[-1]
        raise BenchError(f"{Path(program).name} failed: {last}")
    return output


def _boot(**options) -> vm.VM:
    return vm.boot(files={"/bench": binary()}, command="/bench serve 0.0.0.0:80", **options)


def _of(guest: vm.VM) -> Place:
    def run(words: list[str]) -> str:
        done = guest.run(shlex.join(["/bench", *words]), timeout=300)
        return _output("bench", done.returncode, done.stdout, done.stderr)

    port = guest.settings.ports[80]
    return Place(vm.accelerator(), port, run, "/dev/vda", lambda: [guest.pid])
