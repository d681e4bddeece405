"""The guests' first file system, written as the kernel wants it (a cpio archive, "newc")."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from helpers import machine
from helpers.vm import packages
from helpers.vm.kernel import DEVICES, Kernel

GUEST = Path(__file__).parent / "guest"  # the scripts that run inside

# What an image holds beside busybox: Debian packages, unpacked.
IMAGES = {"busybox": [], "python": ["python3"]}


class Archive:
    """A cpio archive in memory (kernel documentation: "initramfs buffer format").

    Folders that a name needs are made as it is added. Everything belongs to root.
    """

    def __init__(self) -> None:
        """Begin an empty archive."""
        self._parts: list[bytes] = []
        self._folders: set[str] = set()

    def _add(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)):
        if (above := os.path.dirname(name)) and above not in self._folders:
            self.folder(above)
        label = name.encode() + b"\0"
        numbers = (len(self._parts) + 1, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(label), 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers) + label
        self._parts.append(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))

    def folder(self, name: str, mode: int = 0o755) -> None:
        """Add a folder."""
        self._folders.add(name)
        self._add(name, stat.S_IFDIR | mode)

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a file with this content."""
        self._add(name, stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._add(name, stat.S_IFCHR | 0o600, b"", (major, minor))

    def tree(self, root: Path) -> None:
        """Add all that is below a folder, with its modes and links."""
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if path.is_symlink():
                self.link(name, os.readlink(path))
            elif path.is_dir():
                if name not in self._folders:
                    self.folder(name)
            elif path.is_file():
                self.file(name, path.read_bytes(), stat.S_IMODE(path.stat().st_mode))

    def bytes(self) -> bytes:
        """Return the finished archive."""
        end = Archive()
        end._add("TRAILER!!!", 0)
        data = b"".join(self._parts + end._parts)
        return data + bytes(-len(data) % 512)


def image(name: str, kernel: Kernel) -> Path:
    """Return the initramfs of an image (``busybox`` or ``python``) for a kernel, made once.

    Raises:
        ValueError: there is no such image.
    """
    if name not in IMAGES:
        raise ValueError(f"There is no image {name!r}; there are: {', '.join(IMAGES)}.")
    busybox()  # its own line of progress, before the image's
    recipe = b"".join(path.read_bytes() for path in [Path(__file__), *sorted(GUEST.iterdir())])
    version = hashlib.sha256(recipe).hexdigest()[:8]  # a changed recipe makes a new image
    return machine.cached(
        f"images/{name}-{kernel.version}-{version}.cpio",
        lambda draft: draft.write_bytes(_build(IMAGES[name], kernel)),
        what=f"Building the {name} image for Linux {kernel.version}",
        seconds=5 if name == "busybox" else 15,
    )


def base(kernel: Kernel, modules: Iterable[str] = DEVICES, tree: Path | None = None) -> Archive:
    """Return an archive with busybox, the guest's scripts and kernel modules.

    Args:
        kernel: whose modules.
        modules: their names; what they need is added, and all are loaded at start.
        tree: a folder whose content comes first.
    """
    archive = Archive()
    if tree:
        archive.tree(tree)
    else:
        archive.folder("bin")
    for name in ("dev", "proc", "sys", "tmp", "run", "root", "mnt"):
        archive.folder(name)
    archive.device("dev/console", 5, 1)
    program = busybox()
    where = "usr/bin" if tree else "bin"
    archive.file(f"{where}/busybox", program.read_bytes(), 0o755)
    applets = subprocess.run([program, "--list"], capture_output=True, text=True).stdout.split()
    there = {path.name for path in tree.glob("usr/*bin/*")} if tree else set()
    for applet in sorted({*applets} - {"busybox"} - there):
        archive.link(f"{where}/{applet}", "busybox")
    found = kernel.modules(list(modules))
    for path in found:
        archive.file(f"modules/{path.name}", path.read_bytes())
    archive.file("modules/order", "".join(f"{path.name}\n" for path in found).encode())
    for script in ("init", "agent"):
        archive.file(script, (GUEST / script).read_bytes(), 0o755)
    return archive


def busybox() -> Path:
    """Return a statically linked busybox from the archive, fetched once."""
    return packages.program("busybox", "busybox-static")


def _build(names: list[str], kernel: Kernel) -> bytes:
    if not names:
        return base(kernel).bytes()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        packages.unpack(packages.fetch(names, Path(scratch) / "debs", needed=True), root)
        for unneeded in ("usr/share/doc", "usr/share/locale", "usr/share/man", "usr/lib/python3"):
            subprocess.run(["rm", "-rf", root / unneeded], check=True)
        return base(kernel, tree=root).bytes()
