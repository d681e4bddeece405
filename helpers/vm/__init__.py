"""Real virtual machines, on QEMU, as an ordinary user: boot, run in, snapshot, restore."""

from helpers.vm.guest import VM, Settings, Snapshot, VMError, accelerator, boot, qemu_img, running
from helpers.vm.kernel import Kernel, kernels
from helpers.vm.packages import PackageError

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
