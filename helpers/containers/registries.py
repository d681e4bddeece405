"""A registry for images on this machine: what Docker Hub or Amazon ECR is on the network."""

from __future__ import annotations

import fcntl
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from helpers import ledger
from helpers.containers.daemon import engine, label
from helpers.containers.images import ImageError, image
from helpers.vm import packages

NAME = "image registry"
CONFIG = """
version: 0.1
log: {{ level: info }}
storage:
  filesystem: {{ rootdirectory: "{folder}" }}
  delete: {{ enabled: true }}
http: {{ addr: "127.0.0.1:0" }}
"""


class RegistryError(RuntimeError):
    """No registry can be had; the message says why."""


@dataclass(frozen=True)
class Registry:
    """A registry that answers.

    Attributes:
        address: host and port by which the Docker Engine reaches it: an image that is tagged
            ``ADDRESS/name:tag`` is pushed there.
        url: where its HTTP API answers on this machine.
    """

    address: str
    url: str


def registry() -> Registry:
    """Make sure that a registry answers on this machine's loopback, and return it.

    It is Debian's ``docker-registry`` (fetched once), or the image ``registry:2`` where there is
    no Debian archive. What is pushed there stays until ``down``.

    Raises:
        RegistryError: it can neither be fetched nor pulled, or does not start.
    """
    found, where = engine(), port()
    return Registry(f"{found.host}:{where}", f"http://127.0.0.1:{where}")


@ledger.for_all()
def port() -> int:
    """Make sure that the registry runs, without an Engine if it can, and return its port here.

    Raises:
        RegistryError: as ``registry``.
    """
    with open(ledger.home() / "registry.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a push sends its layers side by side
        try:
            return _process()
        except packages.PackageError as problem:
            engine()
            return _container(problem)


def program() -> Path:
    """Return Debian's registry program, fetched once."""
    return packages.program("docker-registry", "docker-registry")


def _process() -> int:
    """Return the port of the registry's process, which is started if it does not run."""
    for entry in ledger.entries("process"):
        if entry.name == NAME:
            if entry.alive():
                return entry.facts["port"]
            entry.forget()
    folder = ledger.home() / "registry"
    if folder not in [Path(entry.facts["path"]) for entry in ledger.entries("files")]:
        ledger.record("files", "images in the registry", path=str(folder))
    folder.mkdir(exist_ok=True)
    config, log = folder / "config.yml", folder / "log"
    config.write_text(CONFIG.format(folder=folder / "images"))
    log.write_bytes(b"")
    process, entry = ledger.spawn(NAME, [str(program()), "serve", str(config)], log=log)
    deadline = time.monotonic() + 10
    while not (told := re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text())):
        if process.poll() is not None or time.monotonic() > deadline:
            ledger.stop(entry)
            last = (log.read_text().strip().splitlines() or ["nothing"])[-1]
            raise RegistryError(f"The image registry does not start. It says: {last}")
        time.sleep(0.01)
    entry.facts["port"] = int(told.group(1))
    entry.save()
    return entry.facts["port"]


def _container(problem: packages.PackageError) -> int:
    """Return the port of a registry in a container, for machines without a Debian archive."""
    name = f"{label().replace('=', '-')}-registry"
    ask = ["docker", "port", name, "5000"]
    if subprocess.run(ask, capture_output=True).returncode:
        try:
            image("registry:2")
        except ImageError as pull:
            raise RegistryError(f"There is no image registry. {problem} And {pull}") from None
        run = ["docker", "run", "-d", "--name", name, "--label", label()]
        subprocess.run([*run, "-p", "127.0.0.1::5000", "registry:2"], check=True)
    return int(subprocess.run(ask, capture_output=True, text=True).stdout.split(":")[-1])
