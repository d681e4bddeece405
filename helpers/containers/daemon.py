"""A Docker Engine that always answers: the machine's own, or one in a virtual machine of ours."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from helpers import ledger, machine
from helpers.containers import engine_vm

HERE, OUTSIDE = "127.0.0.1", "10.0.2.2"  # this machine's loopback, as the Engines know it


@dataclass(frozen=True)
class Engine:
    """A Docker Engine that answers.

    Attributes:
        rung: ``docker`` (the machine's own) or ``docker in a VM``.
        environment: the variables that lead the ``docker`` CLI and the SDK to it.
        version: the Engine's version.
        host: the address at which its containers reach a server on this machine's loopback
            (the machine's own Engine: with ``--network host``).
    """

    rung: str
    environment: dict[str, str]
    version: str
    host: str


def label() -> str:
    """Return the label that everything of this learner carries: ``lab=`` and a short id."""
    return "lab=" + hashlib.sha256(str(ledger.home()).encode()).hexdigest()[:10]


def prefix() -> str:
    """Return what names of this learner's things begin with where they meet those of others."""
    return label().replace("=", "-")


@ledger.for_all()
def engine() -> Engine:
    """Make sure that a Docker Engine answers, point this process at it and return it.

    Sets ``DOCKER_HOST`` and ``DOCKER_CONFIG`` (and for the machine's own Engine nothing else of
    Docker's), ``LAB_LABEL`` and, where the machine has no ``docker`` command, ``PATH``.
    ``LAB_ENGINE=machine`` or ``vm`` forces a rung.

    Raises:
        EngineError: there is neither an Engine nor QEMU, or the wanted one does not answer.
    """
    wanted = os.environ.get("LAB_ENGINE", "")
    address = None if wanted == "vm" else machine.docker_socket()
    if address:
        version = machine.docker_version(address, seconds=20)
        found = _use("docker", {"DOCKER_HOST": address}, version, HERE)
        known = [entry.facts for entry in ledger.entries("engine")]
        facts = {"env": found.environment, "label": label()}
        if facts not in known:
            ledger.record("engine", "containers", **facts)
        return found
    if wanted == "machine":
        probe = machine.docker_engine()
        raise engine_vm.EngineError(f"Docker does not answer: {probe.why}. Try: {probe.command}")
    found = _use("docker in a VM", *engine_vm.start(), OUTSIDE)
    facts = {"env": found.environment, "label": label()}
    for entry in ledger.entries("process"):
        if entry.name == "virtual machine docker" and not facts.items() <= entry.facts.items():
            entry.facts |= facts
            entry.save()
    return found


def running() -> Engine | None:
    """Return the Engine that this learner uses, if it answers. Nothing is started or set."""
    known = [("docker", one.facts["env"], HERE) for one in ledger.entries("engine")]
    if inside := engine_vm.running():
        known.append(("docker in a VM", inside, OUTSIDE))
    for rung, environment, address in reversed(known):
        if version := machine.docker_version(environment["DOCKER_HOST"], environment):
            return Engine(rung, environment, version, address)
    return None


def host() -> str:
    """Return the ``host`` of the Engine that ``engine`` would find, without starting one."""
    return HERE if os.environ.get("LAB_ENGINE") != "vm" and machine.docker_socket() else OUTSIDE


def _use(rung: str, environment: dict[str, str], version: str, host: str) -> Engine:
    """Point this process at an Engine, see to a ``docker`` command, and describe the Engine."""
    for variable in ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONTEXT"):
        os.environ.pop(variable, None)
    environment = {**environment, "DOCKER_CONFIG": str(_config())}
    os.environ.update(environment, LAB_LABEL=label())
    engine_vm.provide_command()
    if not version:
        raise engine_vm.EngineError(f"The Docker Engine ({rung}) does not answer within 20 s.")
    return Engine(rung, environment, version, host)


def _config() -> Path:
    """Return the folder where the ``docker`` command keeps logins: not the learner's own.

    The plug-ins that the learner has are found all the same.
    """
    folder, theirs = ledger.home() / "docker", Path.home() / ".docker/cli-plugins"
    if not folder.exists():
        ledger.record("files", "logins to registries", path=str(folder))
        folder.mkdir(mode=0o700)
        plugins = {"cliPluginsExtraDirs": [str(theirs)]} if theirs.is_dir() else {}
        (folder / "config.json").write_text(json.dumps(plugins))
    return folder
