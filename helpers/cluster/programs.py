"""The programs of a control plane: found, fetched, or built from Debian's source."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from helpers import machine
from helpers.cluster import build
from helpers.vm import packages

PARTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
RELEASES = "https://dl.k8s.io"  # the project's own (kubernetes.io/releases/download)
MINOR = "1.36"  # the newest that Amazon EKS supports (November 2026)


class ProgramError(RuntimeError):
    """A program can neither be found, fetched nor built; the message says why."""


@dataclass(frozen=True)
class Programs:
    """The control plane's programs.

    Attributes:
        version: such as ``(1, 20)``.
        release: such as ``v1.20.2``.
        source: where they came from.
        commands: for each of ``PARTS``, how it is called.
    """

    version: tuple[int, int]
    release: str
    source: str
    commands: dict[str, list[str]]


def find() -> Programs:
    """Return the programs of the control plane.

    Those on PATH come first, then what the cache holds, then the project's own release (with its
    checksum), then a build of Debian's source package, which takes some minutes once.

    Raises:
        ProgramError: none of these can be had; the message says why.
    """
    if all(shutil.which(part) for part in PARTS):
        return _describe("found on PATH", {part: [str(shutil.which(part))] for part in PARTS})
    problems = []
    if not build.path().exists():
        try:
            fetched = _release()
            commands = {part: [str(fetched / part)] for part in PARTS}
            return _describe("the project's release", commands)
        except ProgramError as problem:
            problems.append(str(problem))
    try:
        built = str(build.build())
    except (packages.PackageError, build.BuildError) as problem:
        raise ProgramError(
            f"There is no Kubernetes for this machine. {' '.join(problems)} {problem} "
            f"Put {', '.join(PARTS)} on PATH (conda-forge has them: kubernetes-server)."
        ) from None
    return _describe("built from Debian's source", {part: [built, part] for part in PARTS})


def etcd() -> Path:
    """Return the database's program: of PATH, or Debian's.

    Raises:
        ProgramError: there is none.
    """
    return _program("etcd", "etcd-server", "etcd")


def kubectl() -> Path:
    """Return the ``kubectl`` program: of PATH, or Debian's.

    Raises:
        ProgramError: there is none.
    """
    return _program("kubectl", "kubernetes-client", "kubectl")


def _program(name: str, *sources: str) -> Path:
    try:
        found = shutil.which(name)
        return Path(found) if found else packages.program(name, *sources)
    except packages.PackageError as problem:
        raise ProgramError(f"There is no {name} on this machine: {problem}") from None


def _describe(source: str, commands: dict[str, list[str]]) -> Programs:
    said = subprocess.run([*commands[PARTS[0]], "--version"], capture_output=True, text=True).stdout
    release = said.split()[-1] if said else "?"
    number = re.match(r"v(\d+)\.(\d+)\.", release)
    if not number:
        raise ProgramError(f"{commands[PARTS[0]][0]} does not say its version: {said!r}")
    return Programs((int(number[1]), int(number[2])), release, source, commands)


def _release() -> Path:
    """Return the folder of the project's release, fetched once and compared with its checksums."""
    if found := sorted((machine.cache() / "kubernetes").glob(f"v{MINOR}.*")):
        return found[-1]
    if os.environ.get("LAB_OFFLINE"):
        raise ProgramError("No release is asked for offline.")
    kind = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    try:
        release = _read(f"{RELEASES}/release/stable-{MINOR}.txt").decode().strip()

        def make(draft: Path) -> None:
            draft.mkdir()
            for part in PARTS:
                address = f"{RELEASES}/release/{release}/bin/linux/{kind}/{part}"
                data = _read(address)
                if hashlib.sha256(data).hexdigest() != _read(f"{address}.sha256").decode().strip():
                    raise ProgramError(f"{part} of {release} does not have its checksum.")
                (draft / part).write_bytes(data)
                (draft / part).chmod(0o755)

        what = f"Fetching Kubernetes {release}"
        return machine.cached(f"kubernetes/{release}", make, what=what, seconds=30)
    except OSError as problem:
        raise ProgramError(f"{RELEASES} cannot be reached ({problem}).") from None


def _read(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.read()
