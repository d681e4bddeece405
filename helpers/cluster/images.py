"""Images for the nodes of a cluster: built where an Engine runs them, looked up where none does."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

from helpers.cluster.ladder import running
from helpers.cluster.local import Cluster, ClusterError, run

INSTRUCTION = re.compile(r"^(FROM|ENV|CMD|ENTRYPOINT)\s+(.+)$", re.IGNORECASE)


def image(name: str, folder: Path, of: Cluster | None = None) -> str:
    """Build an image that the nodes of a cluster can run, and return its full name.

    Where pods are containers that is ``docker build``. Where they are processes, there is nothing
    to run an image: a copy of the folder is kept, with what its Dockerfile says to start in it.

    Args:
        name: name and tag, such as ``web-api:1``; the full name says whose it is.
        folder: the build context, with a Dockerfile.
        of: the cluster; that of this LAB_HOME if None.

    Raises:
        ClusterError: no cluster runs, or the image cannot be built; the message says why.
    """
    from helpers import containers

    found = of or running()
    if not found:
        raise ClusterError("No cluster runs. Start one first: cluster.start()")
    name = f"{containers.prefix()}/{name}"
    if found.rung == "process":
        _keep(found, name, Path(folder))
        return name
    containers.engine()
    containers.image("python:3-slim")
    words = ["docker", "build", "-q", "--label", containers.label(), "-t", name, str(folder)]
    run(words, f"{name} could not be built")
    if found.rung == "kind":
        words = ["kind", "load", "docker-image", name, "--name", containers.prefix()]
        run(words, "kind did not take the image")
    return name


def _keep(found: Cluster, name: str, folder: Path) -> None:
    copy = found.folder / "images" / re.sub(r"[^\w.-]", "-", name)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    known = found.folder / "images.json"
    images = json.loads(known.read_text()) if known.exists() else {}
    images[name] = {"cwd": str(copy), **_starts(copy / "Dockerfile")}
    draft = known.with_suffix(".draft")
    draft.write_text(json.dumps(images))
    draft.replace(known)


def _starts(dockerfile: Path) -> dict:
    """Return the command and the variables that the last stage of a Dockerfile sets."""
    command: dict[str, list[str]] = {}
    env: dict[str, str] = {}
    for line in dockerfile.read_text().replace("\\\n", " ").splitlines():
        if not (said := INSTRUCTION.match(line.strip())):
            continue
        word, rest = said[1].upper(), said[2].strip()
        if word == "FROM":
            command, env = {}, {}
        elif word == "ENV":
            env |= dict(pair.split("=", 1) for pair in shlex.split(rest) if "=" in pair)
        else:
            command[word] = json.loads(rest) if rest.startswith("[") else ["sh", "-c", rest]
    env.pop("PATH", None)  # there is another file system around it
    return {"command": [*command.get("ENTRYPOINT", []), *command.get("CMD", [])], "env": env}
