"""Virtual machines: boot one, run commands in it, snapshot and restore it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from helpers import ledger, machine
from helpers.vm import initramfs
from helpers.vm import kernel as linux
from helpers.vm.qmp import Monitor, connect


class VMError(RuntimeError):
    """A machine did not start, or does not answer; the message says why and what to do."""


@dataclass
class Settings:
    """What a machine is made of: all that QEMU is told, with paths as text (see ``boot``).

    Attributes:
        ports: guest port to host port on loopback; 0 asks the kernel for a free one.
        accelerator: ``kvm``, ``hvf`` or ``tcg``.
        disk: path of a qcow2 or raw disk, or empty.
        ram: path of a saved memory to start from, or empty.
    """

    name: str
    kernel: str
    initrd: str
    memory: int = 128
    cpus: int = 1
    ports: dict[int, int] = field(default_factory=dict)
    accelerator: str = "tcg"
    disk: str = ""
    outbound: bool = False
    report_free_pages: bool = False
    preallocate: bool = False
    ram: str = ""
    guest_command: str = ""
    address: str = "127.0.0.1"
    reboots: bool = False

    def command(self, memory_file: str) -> list[str]:
        """Return the QEMU command line; paths are relative to the machine's folder."""
        accelerator = self.accelerator
        if accelerator == "tcg":  # translated code takes up to so many MB, besides the guest's own
            accelerator += f",tb-size={max(64, min(256, self.memory // 4))}"
        network = "user,id=net" + ("" if self.outbound else ",restrict=on")
        for guest, host in self.ports.items():
            network += f",hostfwd=tcp:{self.address}:{host}-:{guest}"
        if self.guest_command:  # a comma ends an option, two are one
            answer = self.guest_command.replace(",", ",,")
            network += f",guestfwd=tcp:10.0.2.100:1-cmd:{answer}"
        memory = f"memory-backend-file,id=ram,size={self.memory}M,mem-path={memory_file}"
        memory += f",share={'off' if self.ram else 'on'}"
        memory += f",prealloc={'on' if self.preallocate else 'off'}"
        words = [str(machine.qemu()), "-M", "q35,memory-backend=ram", "-accel", accelerator]
        words += ["-cpu", "host"] if self.accelerator == "kvm" else []
        words += ["-m", str(self.memory), "-object", memory, "-smp", str(self.cpus)]
        words += ["-nodefaults", "-no-user-config", "-display", "none"]
        words += [] if self.reboots else ["-no-reboot"]
        words += ["-kernel", self.kernel, "-initrd", self.initrd]
        words += ["-append", f"console=ttyS0 quiet panic=-1 lab.name={self.name}"]
        words += ["-chardev", "file,id=console,path=console.log", "-serial", "chardev:console"]
        words += ["-chardev", "socket,id=agent,path=agent.sock,server=on,wait=off"]
        words += ["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=agent"]
        words += ["-netdev", network, "-device", "virtio-net-pci,romfile=,netdev=net"]
        words += ["-qmp", "unix:qmp.sock,server=on,wait=off"]
        if self.report_free_pages:
            words += ["-device", "virtio-balloon-pci,free-page-reporting=on"]
        if self.disk:
            # An empty disk keeps its promises (a flush is one); of a system's disk only the
            # changes are ours, and they are thrown away with the machine.
            kind, cache = ("raw", "writeback")
            if self.disk.endswith(".qcow2"):
                kind, cache = ("qcow2", "unsafe")
            drive = f"file={self.disk},if=none,id=disk,format={kind},cache={cache},discard=unmap"
            words += ["-drive", drive, "-device", "virtio-blk-pci,drive=disk"]
        if self.ram:
            words += ["-incoming", "defer"]
        return words


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
                    raise VMError(self._silent())
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
                raise VMError(_port_taken(host_port))
            self.settings.ports[port] = _forwards(monitor)[port]
        self._save()
        return self.settings.ports[port]

    def unpublish(self, port: int) -> None:
        """Stop forwarding to a published port of the guest; a connection to it is refused."""
        with self.monitor() as monitor:
            host_port = self.settings.ports.pop(port)
            monitor.human(f"hostfwd_remove net tcp:{self.settings.address}:{host_port}")
        self._save()

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
            raise VMError(self._silent()) from None

    def alive(self) -> bool:
        """Say whether it runs."""
        return self.entry.alive()

    def stop(self) -> None:
        """Switch it off, as by pulling the plug, and remove its files. Repeating is no error."""
        ledger.stop(self.entry)
        _discard(self.folder)

    def snapshot(self, name: str | None = None, folder: Path | None = None) -> Snapshot:
        """Save the running machine, memory and all; it goes on afterwards.

        Args:
            name: the snapshot's name.
            folder: where to keep it; without one it is kept until ``down``.

        Raises:
            VMError: QEMU cannot save it, or the disk is full.
        """
        if self.settings.report_free_pages:
            raise VMError("A machine that gives memory back cannot be saved; boot it without.")
        if folder is None:
            folder = ledger.home() / "snapshots" / (name or f"{self.name}-{uuid.uuid4().hex[:4]}")
            ledger.record("files", f"snapshot {folder.name}", path=str(folder))
        folder.mkdir(parents=True)
        with self.monitor() as monitor:
            monitor("stop")
            try:
                monitor("migrate-set-capabilities", capabilities=_IGNORE_SHARED)
                monitor("migrate", uri=f"exec:cat > '{folder / 'state'}'")
                while (answer := monitor("query-migrate"))["status"] not in ("completed", "failed"):
                    time.sleep(0.002)
                if answer["status"] == "failed":
                    raise VMError(f"The machine could not be saved: {answer.get('error-desc')}.")
                _copy_sparse(self._memory_file(), folder / "ram")
                if self.settings.disk:
                    _save_disk(self.folder / self.settings.disk, folder / self.settings.disk)
            finally:
                monitor("cont")
        shutil.copyfile(self.settings.initrd, folder / "initrd")
        text = json.dumps(asdict(self.settings))  # the cache may be moved or copied
        text = text.replace(json.dumps(str(machine.cache()))[1:-1], "$LAB_CACHE")
        (folder / "settings.json").write_text(text)
        return Snapshot(folder)

    def _memory_file(self) -> Path:
        for path in Path(f"/proc/{self.pid}/fd").iterdir():
            if "memfd:ram" in os.readlink(path):
                return path
        return Path(self.settings.ram)

    @contextlib.contextmanager
    def _agent(self, seconds: float):
        try:
            link = connect(self.folder / "agent.sock", 2.0)
        except OSError:
            raise VMError(self._silent()) from None
        link.settimeout(seconds)
        stream = link.makefile("rwb")
        try:
            yield stream
        except OSError:
            raise VMError(self._silent()) from None
        finally:
            with contextlib.suppress(OSError):
                stream.close()
            link.close()

    def _silent(self) -> str:
        state = "does not answer" if self.alive() else "is not running any more"
        lines = self.console().strip().splitlines() or ["nothing"]
        panic = [line for line in lines if "Kernel panic" in line]
        said = f"says: {panic[0]}" if panic else f"ends with: {lines[-1]}"
        small = " Give it at least 96 MB." if self.settings.memory < 96 else ""
        return f"The virtual machine {self.name} {state} (its console {said}).{small}"

    def _save(self) -> None:
        self.entry.facts["vm"] = asdict(self.settings)
        self.entry.save()


class Snapshot:
    """A saved machine: state, memory and disk in one folder. It can be restored many times."""

    def __init__(self, folder: Path) -> None:
        """Take up the snapshot in a folder."""
        self.folder = folder

    @property
    def size_mb(self) -> int:
        """What it takes on the disk."""
        return sum(path.stat().st_blocks for path in self.folder.iterdir()) * 512 >> 20

    def restore(
        self,
        name: str | None = None,
        *,
        ports: Iterable[int] | None = None,
        guest_command: str = "",
    ) -> VM:
        """Start a machine that goes on where the saved one was.

        Its memory is read from the snapshot as it is needed, and shared with other machines
        restored from it until one of them writes (copy on write).

        Args:
            name: the new machine's name (its host name stays the saved one's).
            ports: guest ports to publish; those of the saved machine if left out.
            guest_command: as for ``boot``.

        Raises:
            VMError: it does not start.
        """
        text = (self.folder / "settings.json").read_text()
        cache = json.dumps(str(machine.cache()))[1:-1]
        settings = Settings(**json.loads(text.replace("$LAB_CACHE", cache)))
        settings.name = name or _free_name()
        guests = [int(port) for port in settings.ports] if ports is None else ports
        settings.ports = dict.fromkeys(guests, 0)
        settings.ram = str(self.folder / "ram")
        settings.initrd = str(self.folder / "initrd")
        settings.guest_command = guest_command
        settings.address = Settings.address
        return _start(settings, restore_from=self.folder)

    def delete(self) -> None:
        """Remove it from the disk."""
        _discard(self.folder)


def accelerator() -> str:
    """Return what runs guests here: ``kvm`` if it is proved to work, else ``tcg`` (emulation).

    ``LAB_ACCEL`` names one to be used as it is.

    Raises:
        VMError: QEMU is not installed.
    """
    if not machine.qemu():
        raise VMError(f"QEMU is not installed; this installs it: {machine.QEMU_COMMAND}")
    return os.environ.get("LAB_ACCEL") or ("kvm" if machine.kvm().works else "tcg")


def boot(
    image: str | Path = "busybox",
    *,
    memory: int = 128,
    cpus: int = 1,
    kernel: linux.Kernel | None = None,
    ports: Iterable[int] | Mapping[int, int] = (80,),
    files: Mapping[str, bytes | Path] | None = None,
    command: str = "",
    name: str | None = None,
    disk: Path | None = None,
    disk_mb: int = 0,
    outbound: bool = False,
    report_free_pages: bool = False,
    preallocate: bool = False,
    guest_command: str = "",
    address: str = Settings.address,
    reboots: bool = False,
) -> VM:
    """Boot a virtual machine and return it once its userspace answers.

    Args:
        image: ``busybox`` (a shell and its tools), ``python`` (these and Python), ``server``
            (these, bash and an SSH server), or the path of an initramfs.
        memory: MB of RAM; it needs no more than that of the host, and takes it as it is touched.
        cpus: number of virtual processors.
        kernel: one of ``vm.kernels()``; the first if left out.
        ports: guest ports to publish on free ports of this machine's loopback, or a mapping from
            guest port to host port.
        files: path in the guest to content (bytes, or a file of the host); all are executable.
        command: shell line that runs in the background from the start.
        name: its name; one is made up if left out.
        disk: a disk to work on, of the size of the file if it is raw (``.raw``). A qcow2 disk is
            left as it is: changes are the machine's own.
        disk_mb: size of an empty disk, ``/dev/vda``, instead.
        outbound: let the guest open connections to the outside.
        report_free_pages: let the guest give memory back that it has freed.
        preallocate: set all memory aside on the host from the start.
        guest_command: program of this machine that answers the guest's connections to 10.0.2.100
            port 1, one process each.
        address: the loopback address of this machine on which ports are published.
        reboots: start again when the guest reboots, instead of ending.

    Raises:
        VMError: QEMU is missing, the memory does not fit, a port or the name is taken, or the
            guest does not start.
    """
    how = accelerator()
    chosen = kernel or linux.default()
    initrd = image if isinstance(image, Path) else initramfs.image(image, chosen)
    free = machine.facts()["memory_free_mb"]
    if memory > free:
        raise VMError(
            f"A machine of {memory} MB does not fit: {free} MB are free here. "
            "Ask for less, or stop something (python -m helpers status shows what runs)."
        )
    settings = Settings(
        name or _free_name(),
        str(chosen.image),
        str(initrd),
        memory,
        cpus,
        dict(ports) if isinstance(ports, Mapping) else dict.fromkeys(ports, 0),
        how,
        outbound=outbound,
        report_free_pages=report_free_pages,
        preallocate=preallocate,
        guest_command=guest_command,
        address=address,
        reboots=reboots,
    )
    return _start(settings, files=files, startup=command, disk=disk, disk_mb=disk_mb)


def running() -> list[VM]:
    """Return the machines that run now, oldest first, also those that another kernel started."""
    return [VM(e) for e in ledger.entries("process") if "vm" in e.facts and e.alive()]


_IGNORE_SHARED = [{"capability": "x-ignore-shared", "state": True}]


def _start(
    settings: Settings,
    *,
    files: Mapping[str, bytes | Path] | None = None,
    startup: str = "",
    disk: Path | None = None,
    disk_mb: int = 0,
    restore_from: Path | None = None,
) -> VM:
    folder = ledger.home() / "vm" / settings.name
    if folder.exists():
        if any(other.name == settings.name for other in running()):
            raise VMError(f"A virtual machine {settings.name} runs already: stop it first.")
        shutil.rmtree(folder)  # of one that died
    ledger.record("files", f"files of {settings.name}", path=str(folder))
    folder.mkdir(parents=True)
    if files or startup:
        settings.initrd = str(_with_files(folder, Path(settings.initrd), files or {}, startup))
    _prepare_disk(settings, folder, disk, disk_mb, restore_from)
    pass_fds = ()
    memory_file = settings.ram
    if not memory_file:
        memory_fd = os.memfd_create("ram", 0)
        pass_fds, memory_file = (memory_fd,), f"/proc/self/fd/{memory_fd}"
    command = settings.command(memory_file)
    begin = time.perf_counter()
    try:
        _, entry = ledger.spawn(
            f"virtual machine {settings.name}",
            command,
            log=folder / "qemu.log",
            facts={"vm": asdict(settings), "folder": str(folder), "command": command},
            cwd=folder,
            pass_fds=pass_fds,
        )
    finally:
        for fd in pass_fds:
            os.close(fd)
    machine_ = VM(entry)
    try:
        if restore_from:
            _load(machine_, restore_from)
        _wait(machine_, 60 if settings.accelerator == "tcg" else 20)
        machine_.boot_seconds = entry.facts["boot_seconds"] = time.perf_counter() - begin
        if settings.ports:
            with machine_.monitor() as monitor:
                machine_.settings.ports = _forwards(monitor)
        machine_._save()
    except BaseException:
        machine_.stop()
        raise
    return machine_


def _load(machine_: VM, folder: Path) -> None:
    with machine_.monitor() as monitor:
        monitor("migrate-set-capabilities", capabilities=_IGNORE_SHARED)
        monitor("migrate-incoming", uri=f"exec:cat '{folder / 'state'}'")
        while monitor("query-status")["status"] == "inmigrate":
            time.sleep(0.001)
        monitor("cont")


def _wait(machine_: VM, seconds: float) -> None:
    """Wait until the guest's agent says that it is ready, or QEMU ends."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if machine_.settings.ram:
            return  # it was ready when it was saved
        try:
            link = connect(machine_.folder / "agent.sock", 0.05)
        except OSError:
            _raise_if_ended(machine_)
            continue
        with link:
            link.settimeout(0.2)
            while time.monotonic() < deadline:
                try:
                    if link.recv(64):
                        return
                    break
                except TimeoutError:
                    _raise_if_ended(machine_)
                except OSError:
                    break  # QEMU is going: the next connection tells
    raise VMError(
        machine_._silent() + f" It had {seconds:.0f} s to start. "
        "If this is KVM, LAB_ACCEL=tcg uses emulation instead."
    )


def _raise_if_ended(machine_: VM) -> None:
    if machine_.alive():
        return
    said = (machine_.folder / "qemu.log").read_text(errors="replace").strip()
    if "host forwarding" in said:
        taken = re.search(r"127[.\d]+:(\d+)-", said)
        raise VMError(_port_taken(taken.group(1) if taken else "asked for"))
    if said:
        last = re.sub(r"^\S*qemu-system-\S+: ", "", said.splitlines()[-1])
        raise VMError(f"The virtual machine {machine_.name} did not start. QEMU says: {last}")
    raise VMError(machine_._silent())


def _prepare_disk(settings, folder, disk, disk_mb, restore_from) -> None:
    """Give the machine a disk of its own: empty, or the changes on top of one that stays."""
    if disk and disk.suffix == ".raw":
        settings.disk = "disk.raw"
        (folder / settings.disk).symlink_to(disk)
    elif restore_from and settings.disk == "disk.raw":
        _copy_sparse(restore_from / settings.disk, folder / settings.disk)
    elif disk := disk or (restore_from and settings.disk and restore_from / settings.disk):
        settings.disk = "disk.qcow2"
        create = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", disk]
        qemu_img(*create, folder / settings.disk)
    elif disk_mb:
        settings.disk = "disk.raw"
        with open(folder / settings.disk, "wb") as file:
            file.truncate(disk_mb << 20)


def _save_disk(source: Path, target: Path) -> None:
    """Copy a disk that no running machine writes to, packed, with all that it stands on."""
    if source.suffix == ".raw":
        _copy_sparse(source, target)
    else:
        packed = ["-c", "-o", "compression_type=zstd"]
        qemu_img("convert", "-U", *packed, "-O", "qcow2", source, target)


def qemu_img(*arguments) -> None:
    """Run QEMU's tool for disk images.

    Raises:
        VMError: it failed; the message is its own.
    """
    try:
        done = subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True)
    except FileNotFoundError:
        raise VMError("qemu-img is missing: install the package qemu-utils.") from None
    if done.returncode:
        raise VMError(f"A disk image could not be made: {done.stderr.strip()}")


def _with_files(folder: Path, initrd: Path, files: Mapping, startup: str) -> Path:
    """Return an initramfs with files added: the kernel unpacks one archive after the other."""
    archive = initramfs.Archive()
    for path, content in files.items():
        data = content if isinstance(content, bytes) else Path(content).read_bytes()
        archive.file(path.strip("/"), data, 0o755)
    if startup:
        archive.file("start", f"#!/bin/sh\n{startup}\n".encode(), 0o755)
    target = folder / "initrd"
    shutil.copyfile(initrd, target)
    with open(target, "ab") as file:
        file.write(archive.bytes())
    return target


def _copy_sparse(source: Path, target: Path) -> None:
    """Copy a file, leaving out what is zero: it takes no room on the disk."""
    copy = ["cp", "--sparse=always", source, target]
    done = subprocess.run(copy, capture_output=True, text=True)
    if done.returncode:
        raise VMError(f"The machine could not be copied: {done.stderr.strip()}")


def _discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for entry in ledger.entries("files"):
        if entry.facts["path"] == str(folder):
            ledger.stop(entry)


def _forwards(monitor: Monitor) -> dict[int, int]:
    """Return guest port to host port, as QEMU itself tells it (``info usernet``)."""
    table = monitor.human("info usernet")
    rows = re.findall(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)", table)
    return {int(guest): int(host) for host, guest in rows}


def _port_taken(port) -> str:
    return (
        f"Port {port} of this machine is in use: choose another, "
        "or leave it out and take the free one that VM.url tells."
    )


def _free_name() -> str:
    return f"vm-{uuid.uuid4().hex[:6]}"
