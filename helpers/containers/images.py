"""Base images: pulled where a registry answers, otherwise built here from Debian packages."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from helpers import machine
from helpers.vm import packages

# Name of each image, the one below it, and the packages that its stand-in adds.
STAND_INS = {
    "debian:stable-slim": (
        "scratch",
        "base-files base-passwd bash coreutils dash findutils grep gzip hostname procps sed tar "
        "util-linux",
    ),
    "python:3-slim": ("debian:stable-slim", "python3 python3-pip python3-venv ca-certificates"),
    "python:3": ("python:3-slim", "gcc git libc6-dev make python3-dev"),
}
BASE = "lab.base=1"  # the label of images that our own machine's Engine has from the start
SMALL = ("debian:stable-slim", "python:3-slim")  # the ones that most lessons need
# What `pip install` finds in the stand-in, so that a build needs no network.
WHEELS = Path(__file__).parents[2] / "data/app/requirements-test.txt"
PIP_CONF = """\
# This image was built where no registry answered. Its pip looks into this folder alone;
# PIP_NO_INDEX=0 makes it ask PyPI, or the index that PIP_INDEX_URL names, as well.
[global]
no-index = true
find-links = /usr/share/wheels
"""


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
        found = client.images.get(name)
    except docker.errors.ImageNotFound:
        probe = machine.registry(dict(os.environ))
        if probe.works:
            client.images.pull(name)
            return "pulled"
        if name not in STAND_INS:
            raise ImageError(f"{name} cannot be pulled: {probe.why}.") from None
        load_stand_in(name, label=os.environ["LAB_LABEL"])
        found = client.images.get(name)
    if "lab.stand-in" not in found.labels:
        return "already here"
    _hold(client, name)
    return found.labels["lab.stand-in"]


def _hold(client, name: str) -> None:
    """Give a stand-in, and those below it, a second name: others may use this Engine (ledger)."""
    prefix = os.environ["LAB_LABEL"].replace("=", "-")
    while name in STAND_INS:
        for one in client.images.list(name):
            one.tag(f"{prefix}/{name}")
        name, _ = STAND_INS[name]


def load_stand_in(name: str, label: str) -> None:
    """Load the stand-in of an image into the Engine that the environment names.

    Args:
        name: one of ``STAND_INS``.
        label: put on the image, so that it is found again and removed.

    Raises:
        ImageError: it could not be built.
    """
    what = f"stand-in built from {_distribution()} packages"
    below, _ = STAND_INS[name]
    with tempfile.TemporaryDirectory() as context:
        shutil.copyfile(archive(name), Path(context) / "root.tar")
        lines = [
            f"FROM {below}",
            f'LABEL lab.stand-in="{what}" {label}',  # at once: it inherits the label of another
            "ADD root.tar /",
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8",
            f'CMD ["{"python3" if name.startswith("python") else "bash"}"]',
        ]
        if below != "scratch" and "LAB_LABEL" in os.environ:
            image(below)
        (Path(context) / "Dockerfile").write_text("\n".join(lines))
        built = subprocess.run(
            ["docker", "build", "-q", "-t", name, context],
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
            capture_output=True,
            text=True,
        )
    if built.returncode:
        raise ImageError(f"The stand-in for {name} could not be built: {built.stderr.strip()}")


def archive(name: str) -> Path:
    """Return the tar archive of a stand-in's files; of a later one, only what it adds."""
    stem = name.replace(":", "-")
    return machine.cached(
        f"images/{stem}-{recipe()}.tar",
        lambda draft: _write(name, draft),
        what=f"Building a stand-in for {name}",
        seconds=10,
        replaces=f"{stem}-{'?' * 8}.tar",
    )


def recipe() -> str:
    """Return a digest of what the stand-ins are made from; when it changes, they are made anew."""
    files = [Path(__file__), *sorted(WHEELS.parent.glob("requirements*.txt"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


def _write(name: str, draft: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        below, _ = STAND_INS[name]
        found = _fetch(name, Path(scratch) / "debs")
        known = (
            {} if below == "scratch" else {p.name for p in _fetch(below, Path(scratch) / "below")}
        )
        packages.unpack([package for package in found if package.name not in known], root)
        for unneeded in ("doc", "locale", "man", "info", "lintian"):
            shutil.rmtree(root / "usr/share" / unneeded, ignore_errors=True)
        if name == "debian:stable-slim":
            _finish_system(root)
        elif name == "python:3-slim":
            _finish_python(root)
        with tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(root.iterdir()):
                if below == "scratch" or path.name in ("usr", "etc", "var"):
                    tar.add(path, path.name, filter=_owned_by_root)


def _fetch(name: str, folder: Path) -> list[Path]:
    """Return the packages of a stand-in and of all below it."""
    # Something depends on "usrmerge | usr-is-merged"; the first would bring all of Perl.
    wanted = packages.names("^usr-is-merged$")
    while name != "scratch":
        name, added = STAND_INS[name]
        wanted += added.split()
    return packages.fetch(wanted, folder, needed=True)


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
    """Put Python and pip where the published image has them, with wheels to install from."""
    folder = root / "usr/local/bin"
    folder.mkdir(parents=True, exist_ok=True)
    for name, program in (("python", "python3"), ("python3", "python3"), ("pip", "pip3")):
        (folder / name).symlink_to(f"/usr/bin/{program}")
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_text("".join(path.read_text() for path in certificates))
    (python,) = (root / "usr/bin").glob("python3.[0-9]*[0-9]")
    (root / "usr/lib" / python.name / "EXTERNALLY-MANAGED").unlink(missing_ok=True)
    (root / "etc/pip.conf").write_text(PIP_CONF)
    _fetch_wheels(root / "usr/share/wheels", python.name.removeprefix("python"))
    _compile(root, python)


def _fetch_wheels(folder: Path, version: str) -> None:
    """Download what the web API needs, for the image's version of Python."""
    words = "-m pip download --quiet --disable-pip-version-check --only-binary=:all:".split()
    words += ["--platform", f"manylinux2014_{platform.machine()}", "--python-version", version]
    words += ["--dest", str(folder), "--requirement", str(WHEELS)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise ImageError(f"Python packages for the image could not be fetched: {said}")


def _compile(root: Path, python: Path) -> None:
    """Compile the standard library and pip, as Debian does while it installs; it saves time."""
    words = f"-m compileall -q --invalidation-mode unchecked-hash -s {root} -p /".split()
    words += [root / "usr/lib" / python.name, root / "usr/lib/python3/dist-packages"]
    environment = {
        "PYTHONHOME": str(root / "usr"),
        "LD_LIBRARY_PATH": str(root / f"usr/lib/{platform.machine()}-linux-gnu"),
    }
    subprocess.run([python, *words], env=environment, capture_output=True)


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
