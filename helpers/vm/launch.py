"""Start virtual machines, and wait until they answer."""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from helpers import ledger, machine
from helpers.vm import disks, initramfs
from helpers.vm import kernel as linux
from helpers.vm.guest import VM, forwards, port_taken
from helpers.vm.qmp import connect
from helpers.vm.settings import Settings, VMError

# The memory is saved and loaded as a file, apart from the rest of the machine's state.
SHARED_MEMORY = [{"capability": "x-ignore-shared", "state": True}]


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
        name or free_name(),
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
    return start(settings, files=files, startup=command, disk=disk, disk_mb=disk_mb)


def running() -> list[VM]:
    """Return the machines that run now, oldest first, also those that another kernel started."""
    return [VM(e) for e in ledger.entries("process") if "vm" in e.facts and e.alive()]


def start(
    settings: Settings,
    *,
    files: Mapping[str, bytes | Path] | None = None,
    startup: str = "",
    disk: Path | None = None,
    disk_mb: int = 0,
    restore_from: Path | None = None,
) -> VM:
    """Start QEMU and return the machine once it answers; see ``boot`` and ``Snapshot.restore``.

    Args:
        settings: what it is made of.
        files: path in the guest to content.
        startup: shell line that runs in the background from the start.
        disk: a disk to work on.
        disk_mb: size of an empty disk instead.
        restore_from: folder of the snapshot to go on from.

    Raises:
        VMError: the name or a port is taken, or the guest does not start.
    """
    folder = ledger.home() / "vm" / settings.name
    if folder.exists():
        if any(other.name == settings.name for other in running()):
            raise VMError(f"A virtual machine {settings.name} runs already: stop it first.")
        shutil.rmtree(folder)  # of one that died
    ledger.record("files", f"files of {settings.name}", path=str(folder))
    folder.mkdir(parents=True)
    if files or startup:
        settings.initrd = str(_with_files(folder, Path(settings.initrd), files or {}, startup))
    disks.prepare(settings, folder, disk, disk_mb, restore_from)
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
                machine_.settings.ports = forwards(monitor)
        machine_.save()
    except BaseException:
        machine_.stop()
        raise
    return machine_


def _load(machine_: VM, folder: Path) -> None:
    with machine_.monitor() as monitor:
        monitor("migrate-set-capabilities", capabilities=SHARED_MEMORY)
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
        machine_.silent() + f" It had {seconds:.0f} s to start. "
        "If this is KVM, LAB_ACCEL=tcg uses emulation instead."
    )


def _raise_if_ended(machine_: VM) -> None:
    if machine_.alive():
        return
    said = (machine_.folder / "qemu.log").read_text(errors="replace").strip()
    if "host forwarding" in said:
        taken = re.search(r"127[.\d]+:(\d+)-", said)
        raise VMError(port_taken(taken.group(1) if taken else "asked for"))
    if said:
        last = re.sub(r"^\S*qemu-system-\S+: ", "", said.splitlines()[-1])
        raise VMError(f"The virtual machine {machine_.name} did not start. QEMU says: {last}")
    raise VMError(machine_.silent())


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


def free_name() -> str:
    """Make up a name for a machine."""
    return f"vm-{uuid.uuid4().hex[:6]}"
