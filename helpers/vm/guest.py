"""A virtual machine that runs: commands in it, its ports, its memory, its end."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from helpers import ledger
from helpers.vm.qmp import Monitor, connect
from helpers.vm.settings import Settings, VMError

if TYPE_CHECKING:
    from helpers.vm.snapshots import Snapshot


class VM:
    """A virtual machine that was started; a context manager that stops it at the end.

    Attributes:
        settings: what it is made of.
        command: the QEMU command line that runs it.
        boot_seconds: from the start of QEMU until its userspace answered.
    """

    def __init__(self, entry: ledger.Entry) -> None:
        """Take up a machine that stands in the ledger."""
        facts = dict(entry.facts["vm"])
        facts["ports"] = {int(guest): host for guest, host in facts["ports"].items()}
        self.settings = Settings(**facts)
        self.entry = entry
        self.folder = Path(entry.facts["folder"])
        self.command: list[str] = entry.facts["command"]
        self.boot_seconds: float = entry.facts.get("boot_seconds", 0.0)

    @property
    def name(self) -> str:
        """Its name, which is also the guest's host name."""
        return self.settings.name

    @property
    def pid(self) -> int:
        """The number of its QEMU process on the host."""
        return self.entry.pid

    def __repr__(self) -> str:
        s = self.settings
        return f"<VM {s.name}: {s.cpus} CPU, {s.memory} MB, {s.accelerator}>"

    def __enter__(self) -> VM:
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def run(
        self, command: str, *, input: bytes | str = b"", timeout: float = 60, check: bool = False
    ) -> subprocess.CompletedProcess:
        """Run a shell command in the guest, as root, and wait for its end.

        Args:
            command: for ``sh``; several lines are allowed.
            input: its standard input.
            timeout: seconds after which the guest kills it (status 137).
            check: raise if the status is not 0.

        Returns:
            Exit status, output and errors (text).

        Raises:
            VMError: the machine does not answer.
            subprocess.CalledProcessError: the status is not 0 and ``check`` is set.
        """
        data = input.encode() if isinstance(input, str) else input
        script = command.encode() + b"\n"
        token = uuid.uuid4().hex[:12]
        head = f"{token} {max(1, round(timeout))} {len(script)} {len(data)}\n".encode()
        with self._agent(timeout + 10) as link:
            link.write(head + script + data)
            link.flush()
            while True:
                words = link.readline().split()
                if not words:
                    raise VMError(self.silent())
                if len(words) == 4:
                    output = link.read(int(words[2]))
                    errors = link.read(int(words[3]))
                    if words[0] == token.encode():
                        break
        status = int(words[1])
        done = subprocess.CompletedProcess(
            command, status, output.decode(errors="replace"), errors.decode(errors="replace")
        )
        if check:
            done.check_returncode()
        return done

    def copy_in(self, source: Path | bytes, path: str, mode: int = 0o644) -> None:
        """Write a file of the host, or some bytes, to a path in the guest."""
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        # A program that runs may not be written to, but its file may be replaced.
        line = f"cat > '{path}.new' && chmod {mode:o} '{path}.new' && mv '{path}.new' '{path}'"
        self.run(line, input=data, check=True)

    def url(self, port: int = 80) -> str:
        """Return the address at which a published port of the guest answers on this machine."""
        return f"http://{self.settings.address}:{self.settings.ports[port]}"

    def publish(self, port: int, host_port: int = 0) -> int:
        """Forward a port of this machine's loopback to one of the guest and return it.

        Raises:
            VMError: the port is in use.
        """
        with self.monitor() as monitor:
            here = self.settings.address
            answer = monitor.human(f"hostfwd_add net tcp:{here}:{host_port}-:{port}")
            if answer.strip():
                raise VMError(port_taken(host_port))
            self.settings.ports[port] = forwards(monitor)[port]
        self.save()
        return self.settings.ports[port]

    def unpublish(self, port: int) -> None:
        """Stop forwarding to a published port of the guest; a connection to it is refused."""
        with self.monitor() as monitor:
            host_port = self.settings.ports.pop(port)
            monitor.human(f"hostfwd_remove net tcp:{self.settings.address}:{host_port}")
        self.save()

    def console(self) -> str:
        """Return what the guest has written to its console so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "console.log").read_text(errors="replace").replace("\r", "")
        return ""

    def memory(self) -> dict[str, int]:
        """Return memory figures in MB.

        ``rss_mb`` and ``pss_mb`` are what the QEMU process holds on the host (PSS counts shared
        pages by their share), ``guest_total_mb`` and ``guest_used_mb`` are the guest's own view.
        """
        process = psutil.Process(self.pid)
        full = process.memory_full_info() if sys.platform == "linux" else process.memory_info()
        lines = self.run("cat /proc/meminfo", check=True).stdout
        guest = {key: int(kb) for key, kb in re.findall(r"(\w+):\s+(\d+)", lines)}
        return {
            "rss_mb": full.rss >> 20,
            "pss_mb": getattr(full, "pss", full.rss) >> 20,
            "guest_total_mb": guest["MemTotal"] >> 10,
            "guest_used_mb": (guest["MemTotal"] - guest["MemAvailable"]) >> 10,
        }

    def monitor(self) -> Monitor:
        """Return a connection to QEMU's control socket."""
        try:
            return Monitor(self.folder / "qmp.sock")
        except OSError:
            raise VMError(self.silent()) from None

    def alive(self) -> bool:
        """Say whether it runs."""
        return self.entry.alive()

    def stop(self) -> None:
        """Switch it off, as by pulling the plug, and remove its files. Repeating is no error."""
        ledger.stop(self.entry)
        discard(self.folder)

    def snapshot(self, name: str | None = None, folder: Path | None = None) -> Snapshot:
        """Save the running machine, memory and all; it goes on afterwards.

        Args:
            name: the snapshot's name.
            folder: where to keep it; without one it is kept until ``down``.

        Raises:
            VMError: QEMU cannot save it, or the disk is full.
        """
        from helpers.vm import snapshots  # it starts machines, and so imports this module

        return snapshots.save(self, name, folder)

    @contextlib.contextmanager
    def _agent(self, seconds: float):
        try:
            link = connect(self.folder / "agent.sock", 2.0)
        except OSError:
            raise VMError(self.silent()) from None
        link.settimeout(seconds)
        stream = link.makefile("rwb")
        try:
            yield stream
        except OSError:
            raise VMError(self.silent()) from None
        finally:
            with contextlib.suppress(OSError):
                stream.close()
            link.close()

    def silent(self) -> str:
        """Say that it does not answer, and the last that its console shows."""
        state = "does not answer" if self.alive() else "is not running any more"
        lines = self.console().strip().splitlines() or ["nothing"]
        panic = [line for line in lines if "Kernel panic" in line]
        said = f"says: {panic[0]}" if panic else f"ends with: {lines[-1]}"
        small = " Give it at least 96 MB." if self.settings.memory < 96 else ""
        return f"The virtual machine {self.name} {state} (its console {said}).{small}"

    def save(self) -> None:
        """Write what it is made of to the ledger."""
        self.entry.facts["vm"] = asdict(self.settings)
        self.entry.save()


def discard(folder: Path) -> None:
    """Remove the folder of a machine or a snapshot, and its line in the ledger."""
    shutil.rmtree(folder, ignore_errors=True)
    for entry in ledger.entries("files"):
        if entry.facts["path"] == str(folder):
            ledger.stop(entry)


def forwards(monitor: Monitor) -> dict[int, int]:
    """Return guest port to host port, as QEMU itself tells it (``info usernet``)."""
    table = monitor.human("info usernet")
    rows = re.findall(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)", table)
    return {int(guest): int(host) for host, guest in rows}


def port_taken(port: int | str) -> str:
    """Say that a port of this machine is in use, and what to do."""
    return (
        f"Port {port} of this machine is in use: choose another, "
        "or leave it out and take the free one that VM.url tells."
    )
