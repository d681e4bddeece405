"""What a virtual machine is made of, and the command line that tells QEMU so."""

from __future__ import annotations

from dataclasses import dataclass, field

from helpers import machine


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
        options = f"console=ttyS0 quiet panic=-1 lab.name={self.name}"
        if accelerator == "tcg":
            # Translated code takes up to so many MB, besides the guest's own. It is found again
            # only at the same address, so programs must not lie at random ones.
            accelerator += f",tb-size={max(64, min(256, self.memory // 2))}"
            options += " norandmaps"
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
        words += ["-append", options]
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
