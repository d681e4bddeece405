"""Packages of the Debian (or Ubuntu) archive, fetched and unpacked by an ordinary user.

``apt-get`` works here with lists and a cache of its own, so neither root nor the machine's own
package database is needed, and nothing is installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from helpers import machine


class PackageError(RuntimeError):
    """A package could not be fetched; the message says what to do."""


def fetch(names: list[str], folder: Path, *, needed: bool = False) -> list[Path]:
    """Download packages as ``.deb`` files into a folder.

    Args:
        names: package names.
        folder: where the files go.
        needed: also fetch all that they depend on, as on a machine with nothing installed.

    Returns:
        The files.

    Raises:
        PackageError: there is no apt on this machine, no network, or no such package.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "partial").mkdir(exist_ok=True)
    if needed:
        archives = ["-o", f"Dir::Cache::archives={folder.absolute()}"]
        _apt("apt-get", *archives, "install", "--yes", "--download-only", *names)
    else:
        _apt("apt-get", "download", *names, cwd=folder)
    return sorted(folder.glob("*.deb"))


def names(pattern: str) -> list[str]:
    """Return the names of the packages that match a regular expression."""
    lines = _apt("apt-cache", "search", "--names-only", pattern).splitlines()
    found = [line.split(" - ")[0] for line in lines]
    return [name for name in found if re.search(pattern, name)]  # apt looks at "Provides" too


def depends(name: str) -> list[str]:
    """Return what a package depends on directly; empty if there is no such package."""
    try:
        lines = _apt("apt-cache", "depends", name).splitlines()
    except PackageError:
        return []
    return [line.split()[-1] for line in lines if line.strip().startswith("Depends:")]


def unpack(packages: list[Path], root: Path, *only: str) -> None:
    """Unpack packages below a folder, in the layout in which ``/bin`` is a link to ``/usr/bin``.

    Args:
        packages: ``.deb`` files.
        root: the folder that becomes the guest's ``/``.
        only: path patterns to extract (``./boot/*``); everything if there are none.
    """
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for package in packages:
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE
        ) as archive:
            subprocess.run(
                ["tar", "-x", "-C", root, "--keep-directory-symlink", "--no-same-owner"]
                + (["--wildcards", *only] if only else []),
                stdin=archive.stdout,
                stderr=subprocess.PIPE,
                text=True,
                check=not only,  # a package without the wanted paths is no error
            )


def program(name: str, *sources: str) -> Path:
    """Return one program of the archive, fetched once.

    Args:
        name: the program (``docker``).
        sources: the packages that may have it.

    Raises:
        PackageError: none of them can be fetched, or has it.
    """

    def make(draft: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            found = Path(scratch) / "root/usr/bin" / name
            problem = PackageError(f"There is no program {name} in {' or '.join(sources)}.")
            for source in sources:
                try:
                    debs = fetch([source], Path(scratch) / source)
                    unpack(debs, Path(scratch) / "root", f"*bin/{name}")
                except PackageError as reason:
                    problem = reason
            if not found.exists():
                raise problem
            shutil.copy2(found, draft)

    return machine.cached(f"bin/{name}", make, what=f"Fetching {name}", seconds=3)


def source(name: str, folder: Path) -> Path:
    """Download the source of a package, as its authors released it, and return the archive.

    Args:
        name: the source package.
        folder: where the files go.

    Raises:
        PackageError: it cannot be fetched, or this distribution has none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lists").mkdir()
    shown = "deb-src [signed-by=$(SIGNED_BY)] $(REPO_URI) $(RELEASE) $(COMPONENT)"
    lines = _apt("apt-get", "indextargets", "--format", shown, "Created-By: Packages")
    # Where the machine's list names no key, apt asks all that the machine trusts.
    known = {line.replace("[signed-by=$(SIGNED_BY)] ", "") for line in lines.splitlines()}
    (folder / "sources.list").write_text("\n".join(sorted(known)))
    here = ["-o", f"Dir::Etc::sourcelist={folder / 'sources.list'}"]
    here += ["-o", "Dir::Etc::sourceparts=/nonexistent", "-o", f"Dir::State::lists={folder}/lists"]
    _apt("apt-get", *here, "update")
    _apt("apt-get", *here, "source", "--download-only", name, cwd=folder)
    return next(folder.glob("*.orig.tar.*"))


def _apt(program: str, *arguments: str, cwd: Path | None = None) -> str:
    if not shutil.which(program):
        raise PackageError(
            "Virtual machines are made from Debian packages, and this machine has no apt-get: "
            "copy the cache of a machine that has (README, 'Other systems')."
        )
    options = _options()
    if not list((machine.cache() / "apt/lists").glob("*Packages*")):
        _call([program.replace("apt-cache", "apt-get"), *options, "update"])
    return _call([program, *options, *arguments], cwd)


def _options() -> list[str]:
    state = machine.cache() / "apt"
    for name in ("lists/partial", "archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    if (state / "lists").stat().st_mtime < time.time() - 86400:  # an old list names old files
        shutil.rmtree(state / "lists")
        (state / "lists/partial").mkdir(parents=True)
    (state / "status").touch()
    settings = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Debug::NoLocking": "true",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
        "Acquire::GzipIndexes": "true",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _call(command: list[str], cwd: Path | None = None) -> str:
    with tempfile.TemporaryDirectory() as elsewhere:
        answer = subprocess.run(
            command, cwd=cwd or elsewhere, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    if answer.returncode:
        lines = [line for line in answer.stderr.splitlines() if line.startswith("E:")]
        reason = lines[0][3:] if lines else answer.stderr.strip()[-200:]
        raise PackageError(
            f"Debian packages could not be fetched: {reason} Connect to the network once, "
            "or copy the cache of a machine that has them."
        )
    return answer.stdout
