"""Base images: pulled where a registry answers, otherwise built here from Debian packages."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from helpers import machine
from helpers.vm import packages

# Name of each image, and the packages its stand-in is made of.
SYSTEM = (
    "base-files base-passwd bash coreutils dash findutils grep gzip hostname procps sed tar "
    "util-linux"
)
STAND_INS = {
    "debian:stable-slim": SYSTEM.split(),
    "python:3-slim": [*SYSTEM.split(), "python3", "ca-certificates"],
}


class ImageError(RuntimeError):
    """An image can neither be pulled nor built; the message says why."""


def image(name: str) -> str:
    """Make sure that an image of this name is in the Engine and say where it came from.

    Args:
        name: ``debian:stable-slim`` or ``python:3-slim``, or any other that can be pulled.

    Returns:
        ``already here``, ``pulled``, or ``stand-in built from Debian packages``.

    Raises:
        ImageError: it cannot be pulled, and there is no stand-in for it.
    """
    import docker

    client = docker.from_env()
    try:
        labels = client.images.get(name).labels
        return labels.get("lab.stand-in", "already here")
    except docker.errors.ImageNotFound:
        pass
    probe = machine.registry(dict(os.environ))
    if probe.works:
        client.images.pull(name)
        return "pulled"
    if name not in STAND_INS:
        raise ImageError(f"{name} cannot be pulled: {probe.why}.")
    return load_stand_in(name, label=os.environ["LAB_LABEL"])


def load_stand_in(name: str, label: str) -> str:
    """Load the stand-in of an image into the Engine that the environment names.

    Args:
        name: one of ``STAND_INS``.
        label: put on the image, so that it is found again and removed.

    Returns:
        What it is, as its label ``lab.stand-in`` says.
    """
    what = f"stand-in built from {_distribution()} packages"
    first = next(iter(STAND_INS))
    with tempfile.TemporaryDirectory() as context:
        shutil.copyfile(archive(name), Path(context) / "root.tar")
        lines = [
            f"FROM {'scratch' if name == first else first}",
            "ADD root.tar /",
            f'LABEL lab.stand-in="{what}" {label}',
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8",
            f'CMD ["{"bash" if name == first else "python3"}"]',
        ]
        if name != first and "LAB_LABEL" in os.environ:
            image(first)
        (Path(context) / "Dockerfile").write_text("\n".join(lines))
        built = subprocess.run(
            ["docker", "build", "-q", "-t", name, context],
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
            capture_output=True,
            text=True,
        )
    if built.returncode:
        raise ImageError(f"The stand-in for {name} could not be built: {built.stderr.strip()}")
    return what


def archive(name: str) -> Path:
    """Return the tar archive of a stand-in's files; of a later one, only what it adds."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    return machine.cached(
        f"images/{name.replace(':', '-')}-{recipe}.tar",
        lambda draft: _write(name, draft),
        what=f"Building a stand-in for {name}",
        seconds=10,
    )


def _write(name: str, draft: Path) -> None:
    first = next(iter(STAND_INS))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        found = packages.fetch(STAND_INS[name], Path(scratch) / "debs", needed=True)
        if name != first:
            below = packages.fetch(STAND_INS[first], Path(scratch) / "below", needed=True)
            found = [package for package in found if package.name not in {p.name for p in below}]
        packages.unpack(found, root)
        for unneeded in ("doc", "locale", "man", "info", "lintian"):
            shutil.rmtree(root / "usr/share" / unneeded, ignore_errors=True)
        if name == first:
            _finish_system(root)
        else:
            _finish_python(root)
        with tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(root.iterdir()):
                if name == first or path.name in ("usr", "etc", "var"):
                    tar.add(path, path.name, filter=_owned_by_root)


def _finish_system(root: Path) -> None:
    """Do what the packages' installation scripts would: accounts, groups, the shell's name."""
    for file in ("passwd", "group"):
        shutil.copyfile(root / f"usr/share/base-passwd/{file}.master", root / "etc" / file)
    (root / "usr/bin/sh").unlink(missing_ok=True)
    (root / "usr/bin/sh").symlink_to("dash")
    for folder in ("tmp", "var/tmp", "proc", "sys", "dev", "root", "home", "run"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/tmp"):
        (root / folder).chmod(0o1777)


def _finish_python(root: Path) -> None:
    """Put ``python`` and ``python3`` where the published image has them."""
    folder = root / "usr/local/bin"
    folder.mkdir(parents=True, exist_ok=True)
    for program in ("python", "python3"):
        (folder / program).symlink_to("/usr/bin/python3")
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_text("".join(path.read_text() for path in certificates))


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    return member


def _distribution() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    words = dict(line.split("=", 1) for line in lines if "=" in line)
    return f"{words['NAME']} {words.get('VERSION_ID', '')}".replace('"', "").replace(
        "Debian GNU/Linux", "Debian"
    )
