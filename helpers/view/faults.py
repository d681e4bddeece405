"""Faults to show a class: each breaks one thing of ours, and says beforehand what comes of it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from helpers import containers
from helpers.cluster.control import SILENT_SECONDS
from helpers.view.look import Looker, Orchestrator, Seen, client

POD = "io.kubernetes.pod.name"
HOLDER = "POD"  # the container that only holds a pod's network


@dataclass
class Fault:
    """One thing that can be broken now.

    Attributes:
        name: what it is called on the command line (``pod/default/api-x2k``).
        what: what is going to be done, a sentence.
        where: where the class sees the effect, a sentence.
        do: does it.
    """

    name: str
    what: str
    where: str
    do: Callable[[], None]


def possible(seen: Seen) -> list[Fault]:
    """Return what can be broken of that which exists: only what the course has started."""
    found = [*_machines(seen), *_containers(seen)]
    for one in seen.clusters:
        if one.found.ours:
            found += [*_pods(seen, one), *_nodes(one)]
    return found


def now() -> list[Fault]:
    """Return what can be broken at this moment."""
    return possible(Looker().look())


def choose(name: str) -> Fault:
    """Return the fault of that name among those that are possible now.

    Args:
        name: the name, or the beginning of it if only one begins so.

    Raises:
        RuntimeError: there is none, or there are several; the message names what there is.
    """
    there = now()
    found = [one for one in there if one.name == name]
    found = found or [one for one in there if one.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.name for one in found or there) or "nothing"
    raise RuntimeError(f"{'Several begin so' if found else 'There is no such fault'}: {names}.")


def _machines(seen: Seen) -> Iterator[Fault]:
    for entry in seen.entries:
        name = entry.facts.get("vm", {}).get("name", "docker")
        if name == "docker":  # no machine, or the one that all containers are in
            continue
        where = "It leaves this page, and the next `run` in the notebook fails."
        if any(one["id"] == name for one in seen.aws.get("instances", [])):
            where = "It is stopped here and in `aws ec2 describe-instances`, with the reason."
        what = f"Kills QEMU's process of {name}, as if its power failed."
        yield Fault(f"vm/{name}", what, where, _kill(entry.pid))


def _containers(seen: Seen) -> Iterator[Fault]:
    for one in seen.containers:
        labels, name = one["Labels"], one["Names"][0].lstrip("/")
        if one["State"] != "running" or POD in labels or "lab.cluster" in labels:
            continue  # a cluster's own container is its network
        if build := labels.get("lab.build"):
            what = f"Kills the container in which the build {build} runs."
            where = "Its phase fails and it ends as FAULT, here and in `batch-get-builds`."
            yield Fault(f"build/{build}", what, where, _kill_containers(seen, [one["Id"]]))
        else:
            what = f"Sends SIGKILL to the first process of the container {name} (docker kill)."
            where = "`docker ps --all` shows it as exited with status 137, or it is gone (--rm)."
            yield Fault(f"container/{name}", what, where, _kill_containers(seen, [one["Id"]]))


def _pods(seen: Seen, one: Orchestrator) -> Iterator[Fault]:
    for pod in one.pods:
        meta = pod["metadata"]
        ids = [
            box["Id"]
            for box in seen.containers
            if (box["Labels"].get("lab.cluster"), box["Labels"].get("io.kubernetes.pod.uid"))
            == (one.found.name, meta["uid"])
            and box["Labels"]["io.kubernetes.container.name"] != HOLDER
            and box["State"] == "running"
        ]
        pids = seen.pods.get(meta["uid"], [])
        if not ids and not pids:
            continue
        name = f"pod/{meta['namespace']}/{meta['name']}"
        name += "" if one.found.name == "lab" else f"@{one.found.name}"
        what = f"Kills the containers of the pod {meta['name']}; the pod itself stays."
        where = "RESTARTS of `kubectl get pods` grows by one: the node starts them again."
        yield Fault(name, what, where, _kill_containers(seen, ids) if ids else _kill(*pids))


def _nodes(one: Orchestrator) -> Iterator[Fault]:
    running = one.found.nodes()
    for node in one.nodes:
        name = node["metadata"]["name"]
        if name in running:
            what = f"Pulls the plug of node {name} of {one.found.name}: its pods die with it."
            where = (
                f"After about {SILENT_SECONDS} s it is NotReady in `kubectl get nodes`, and soon "
                "after its pods are made anew elsewhere, if there is room."
            )
            yield Fault(f"node/{one.found.name}/{name}", what, where, _unplug(one, name))


def _unplug(one: Orchestrator, name: str) -> Callable[[], None]:
    def do() -> None:
        if one.found.rung != "process":
            containers.engine()  # leads `docker` to the Engine that has its pods
        one.found.unplug(name)

    return do


def _kill(*pids: int) -> Callable[[], None]:
    def do() -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    return do


def _kill_containers(seen: Seen, ids: list[str]) -> Callable[[], None]:
    def do() -> None:
        from docker import errors

        for one in ids:
            with contextlib.suppress(errors.APIError):  # it has ended meanwhile
                client(seen.engine).kill(one)

    return do
