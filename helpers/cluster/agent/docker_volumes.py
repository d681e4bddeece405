"""A pod's volumes as volumes of a Docker Engine, and as archives that fill them."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path

import docker

from helpers.cluster.agent.runtime import Mount, Volume


def mount(one: Mount, stem: str) -> docker.types.Mount:
    """Return a mount in the Engine's form; its volumes begin with ``stem``."""
    source, kind = f"{stem}-{store(one)}", "volume"
    if one.volume.store.startswith("/"):
        source, kind = str(Path(one.volume.store) / one.sub_path), "bind"
    return docker.types.Mount(
        one.path, source, kind, read_only=one.read_only, no_copy=kind == "volume"
    )


def content(own: dict[str, Volume]) -> bytes:
    """Return an archive that fills volumes, each in a folder of its name.

    As the kubelet does it, a link leads to the folder of the newest version of all files.
    """
    folders, files, links = [], {}, {}
    for name, volume in own.items():
        if volume.kept:
            continue
        folders.append(name)
        version = f"..{time.time_ns()}"
        for path, entry in (volume.files or {}).items():
            files[f"{name}/{version}/{path}"] = entry
            links[f"{name}/..data"] = version
            top = path.split("/")[0]
            links[f"{name}/{top}"] = f"..data/{top}"
    return archive(files, links, folders)


def is_file(mount: Mount) -> bool:
    """Say whether only one file of a volume is wanted: it is put in once, as Kubernetes does."""
    return mount.volume.files is not None and bool(mount.sub_path)


def is_store(mount: Mount) -> bool:
    """Say whether a mount needs a volume of the Engine."""
    return not mount.volume.store.startswith("/") and not is_file(mount)


def store(mount: Mount) -> str:
    """Return the name of the Engine's volume; each sub-path of a volume has one of its own."""
    part = mount.sub_path.strip("/").replace("/", "-")
    return mount.volume.store + (f"-{part}" if part else "")


def one_file(mount: Mount) -> bytes:
    """Return an archive with what a mount wants of a volume of files, at its path."""
    files = {
        mount.path.strip("/") + path.removeprefix(mount.sub_path): entry
        for path, entry in mount.volume.files.items()
        if path == mount.sub_path or path.startswith(f"{mount.sub_path}/")
    }
    return archive(files)


def archive(
    files: dict[str, tuple[bytes, int]],
    links: dict[str, str] | None = None,
    folders: Iterable[str] = (),
) -> bytes:
    """Return a tar archive of folders that everybody may write to, files and links."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in folders:
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(member)
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(content), mode, int(time.time())
            tar.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return data.getvalue()
