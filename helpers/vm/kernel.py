"""Linux kernels for the guests, taken out of the distribution's packages."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from helpers import machine
from helpers.vm import packages

# What a guest needs to see QEMU's devices, and what a Docker Engine in a guest needs.
DEVICES = ("virtio_pci", "virtio_net", "virtio_blk", "virtio_console", "virtio_balloon")
ENGINE = (
    "ext4 overlay bridge br_netfilter veth nf_nat xt_nat xt_tcpudp xt_comment xt_conntrack "
    "xt_MASQUERADE xt_addrtype ip_tables iptable_nat iptable_filter"
).split()


@dataclass(frozen=True)
class Kernel:
    """A kernel in the cache: its version (as ``uname -r`` tells it) and its folder."""

    version: str
    folder: Path

    @property
    def image(self) -> Path:
        """The kernel itself, unpacked (an ELF file, which boots faster than the packed one)."""
        return self.folder / "vmlinux"

    def modules(self, names: tuple[str, ...] | list[str]) -> list[Path]:
        """Return the modules of these names and all they depend on, in the order of loading."""
        order: dict[str, Path] = {}

        def add(name: str) -> None:
            path = self.folder / "modules" / f"{name.replace('-', '_')}.ko"
            if path.name in order or not path.exists():  # built in
                return
            for dependency in _depends(path.read_bytes()):
                add(dependency)
            order[path.name] = path

        for name in names:
            add(name)
        return list(order.values())


def kernels() -> list[Kernel]:
    """Return the kernels at hand: the distribution's usual one, and another version beside it.

    They are fetched on first use (about 30 MB each).
    """
    return [default(), *other()]


def default() -> Kernel:
    """Return the distribution's usual kernel for virtual machines."""
    folder = machine.cached(
        f"kernels/default-{_recipe()}",
        lambda draft: _make(_usual(), draft),
        what="Fetching a Linux kernel",
        seconds=10,
    )
    return Kernel((folder / "version").read_text(), folder)


def other() -> list[Kernel]:
    """Return a second kernel of another version, or an empty list if the archive has only one."""
    folder = machine.cached(
        f"kernels/other-{_recipe()}",
        _make_other,
        what="Fetching a second Linux kernel",
        seconds=10,
    )
    version = (folder / "version").read_text()
    return [Kernel(version, folder)] if version else []


def _recipe() -> str:
    """Return a digest of what is kept of a kernel; when that changes, it is fetched anew."""
    return hashlib.sha256(" ".join([*DEVICES, *ENGINE]).encode()).hexdigest()[:8]


def _usual() -> str:
    for meta in ("linux-image-cloud-amd64", "linux-image-virtual"):  # Debian, Ubuntu
        for name in packages.depends(meta):
            if name.startswith("linux-image-"):
                return name
    raise packages.PackageError("This machine's package archive offers no Linux kernel.")


def _make_other(draft: Path) -> None:
    usual = _usual()
    flavour = usual.rsplit("-", 2)[-2:] if usual.endswith("amd64") else [usual.rsplit("-", 1)[-1]]
    pattern = rf"^linux-image-[0-9]+\.[0-9]+\.[0-9]+.*-{'-'.join(flavour)}$"
    found = sorted(packages.names(pattern), key=_numbers, reverse=True)
    others = [name for name in found if _numbers(name)[:2] != _numbers(usual)[:2]]
    others = others or [name for name in found if name != usual]
    if others:
        _make(others[0], draft)
    else:
        draft.mkdir()
        (draft / "version").write_text("")


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name.removesuffix("-amd64"))]


def _make(package: str, draft: Path) -> None:
    with tempfile.TemporaryDirectory(dir=draft.parent) as scratch:
        modules = package.replace("-image-", "-modules-")  # Ubuntu packs them apart
        wanted = [package, *(name for name in packages.depends(package) if name == modules)]
        files = packages.fetch(wanted, Path(scratch) / "debs")
        root = Path(scratch) / "root"
        packages.unpack(files, root, "./boot/vmlinuz*", "*.ko", "*.ko.xz", "*.ko.zst")
        (packed,) = (root / "boot").glob("vmlinuz-*")
        draft.mkdir()
        (draft / "vmlinux").write_bytes(unpacked(packed.read_bytes()))
        (draft / "version").write_text(packed.name.removeprefix("vmlinuz-"))
        _keep_modules(root, draft / "modules")


def _keep_modules(root: Path, folder: Path) -> None:
    folder.mkdir()
    everything = {path.name.split(".ko")[0].replace("-", "_"): path for path in root.rglob("*.ko*")}
    waiting = [*DEVICES, *ENGINE]
    while waiting:
        name = waiting.pop().replace("-", "_")
        target = folder / f"{name}.ko"
        if name in everything and not target.exists():
            target.write_bytes(_plain(everything[name]))
            waiting += _depends(target.read_bytes())


def _plain(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def _depends(module: bytes) -> list[str]:
    found = re.search(rb"(?:^|\0)depends=([^\0]*)\0", module)
    return [name for name in (found.group(1).decode() if found else "").split(",") if name]


def unpacked(packed: bytes) -> bytes:
    """Return the ELF kernel out of a packed one (bzImage).

    The place of the payload stands in the header, as the kernel's "The Linux/x86 Boot Protocol"
    describes it (fields setup_sects, payload_offset, payload_length).

    Raises:
        ValueError: it is not a bzImage, or packed in a way that is not known here.
    """
    if packed[0x202:0x206] != b"HdrS":
        raise ValueError("This is not a Linux kernel of the form bzImage.")
    setup = (packed[0x1F1] + 1) * 512
    offset, length = struct.unpack_from("<II", packed, 0x248)
    payload = packed[setup + offset : setup + offset + length]
    if payload.startswith(b"\x02\x21\x4c\x18"):
        return b"".join(_lz4_blocks(payload))
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(payload)
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload[:-4])
    raise ValueError(f"This kernel is packed in a way that is not known ({payload[:4].hex()}).")


def _lz4_blocks(payload: bytes):
    """Yield the blocks of an lz4 "legacy frame": each of 8 MB unpacked, its packed size before."""
    import lz4.block

    place = 4
    while place + 8 < len(payload):
        (size,) = struct.unpack_from("<I", payload, place)
        yield lz4.block.decompress(payload[place + 4 : place + 4 + size], 8 << 20)
        place += 4 + size
