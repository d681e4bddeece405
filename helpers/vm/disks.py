"""The disks of virtual machines: one of their own each, and copies."""

from __future__ import annotations

import subprocess
from pathlib import Path

from helpers.vm.settings import Settings, VMError


def prepare(
    settings: Settings,
    folder: Path,
    disk: Path | None,
    disk_mb: int,
    restore_from: Path | None,
) -> None:
    """Give a machine a disk of its own: empty, or the changes on top of one that stays.

    Args:
        settings: the machine's; the disk's name is put there.
        folder: the machine's.
        disk: an image to work on (raw) or to stand on (qcow2).
        disk_mb: size of an empty disk instead.
        restore_from: folder of a snapshot whose disk it gets.
    """
    if disk and disk.suffix == ".raw":
        settings.disk = "disk.raw"
        (folder / settings.disk).symlink_to(disk)
    elif restore_from and settings.disk == "disk.raw":
        copy_sparse(restore_from / settings.disk, folder / settings.disk)
    elif disk := disk or (restore_from and settings.disk and restore_from / settings.disk):
        settings.disk = "disk.qcow2"
        create = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", disk]
        qemu_img(*create, folder / settings.disk)
    elif disk_mb:
        settings.disk = "disk.raw"
        with open(folder / settings.disk, "wb") as file:
            file.truncate(disk_mb << 20)


def save(source: Path, target: Path) -> None:
    """Copy a disk that no running machine writes to, packed, with all that it stands on."""
    if source.suffix == ".raw":
        copy_sparse(source, target)
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


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file, leaving out what is zero: it takes no room on the disk."""
    copy = ["cp", "--sparse=always", source, target]
    done = subprocess.run(copy, capture_output=True, text=True)
    if done.returncode:
        raise VMError(f"The machine could not be copied: {done.stderr.strip()}")
