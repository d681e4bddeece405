"""Real virtual machines, on QEMU, as an ordinary user: boot, run in, snapshot, restore."""

from helpers.vm.disks import qemu_img
from helpers.vm.guest import VM
from helpers.vm.kernel import Kernel, kernels
from helpers.vm.launch import accelerator, boot, running
from helpers.vm.packages import PackageError
from helpers.vm.settings import Settings, VMError
from helpers.vm.snapshots import Snapshot

__all__ = [
    "VM",
    "Kernel",
    "PackageError",
    "Settings",
    "Snapshot",
    "VMError",
    "accelerator",
    "boot",
    "kernels",
    "qemu_img",
    "running",
]
