"""Look at what exists now, without starting or changing anything: only what runs is asked."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import urllib3

from helpers import cloud, cluster, containers, ledger
from helpers.cluster.api import Api, ApiError

NAME = "the live view"
MARKS = re.compile(rf"(?<![^\0])({ledger.MARK}|LAB_POD_UID)=([\w.-]+)".encode())
SYSTEM = ("kube-system", "kube-public", "kube-node-lease", "local-path-storage")


@dataclass
class Orchestrator:
    """A Kubernetes cluster as it was found: its nodes and pods as the API has them."""

    found: cluster.Cluster
    nodes: list[dict] = field(default_factory=list)
    pods: list[dict] = field(default_factory=list)


@dataclass
class Seen:
    """What exists at one moment.

    Attributes:
        entries: the ledger's processes that live.
        engine: the Docker Engine, if one is used and answers.
        containers: ours, as the Engine lists them.
        images: the names of ours.
        aws: what the local cloud has (``helpers.cloud.now``).
        clusters: Kubernetes.
        pods: the processes of pods that are processes, by the pod's uid.
        memory_mb: what all of it holds.
    """

    entries: list[ledger.Entry] = field(default_factory=list)
    engine: containers.Engine | None = None
    containers: list[dict] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    aws: dict[str, list[dict]] = field(default_factory=dict)
    clusters: list[Orchestrator] = field(default_factory=list)
    pods: dict[str, list[int]] = field(default_factory=dict)
    memory_mb: int = 0


class Looker:
    """Looks again and again, and keeps its connections between two looks."""

    def __init__(self, slow_seconds: float = 5) -> None:
        """Look at memory and images only every so many seconds."""
        self._slow_seconds, self._next = slow_seconds, 0.0
        self._images: list[str] = []
        self._memory_mb = 0
        self._marks: dict[str, list[int]] = {}
        self._pods: dict[str, list[int]] = {}
        self._known: tuple = ()
        self._engine: containers.Engine | None = None
        self._docker = None
        self._apis: dict[str, Api] = {}

    def look(self) -> Seen:
        """Return what exists now."""
        written, own = ledger.entries(), set()
        if slow := time.monotonic() >= self._next:
            self._marks, self._pods, own = _processes()
        living = [one for one in written if one.kind == "process" and self._lives(one)]
        seen = Seen([one for one in living if one.name != NAME], pods=self._pods)
        self._look_at_engine(seen, written, slow)
        seen.aws = cloud.contents()
        for name in dict.fromkeys(one.facts.get("cluster") for one in written):
            if name and (found := _cluster(name)):
                seen.clusters.append(self._ask_cluster(found))
        if slow:
            own |= {pid for one in seen.entries for pid in self._marks.get(one.id, [])}
            self._memory_mb = memory_mb(own | inside({one["Id"] for one in seen.containers}))
            self._images = self._list_images()
            self._next = time.monotonic() + self._slow_seconds
        seen.images, seen.memory_mb = self._images, self._memory_mb
        return seen

    def _lives(self, entry: ledger.Entry) -> bool:
        """Say whether a process or one of its children lives, without a look at all processes."""
        mark = f"{ledger.MARK}={entry.id}".encode()
        pids = filter(None, [entry.pid, *self._marks.get(entry.id, [])])
        return any(mark in _variables(pid) for pid in pids)

    def _look_at_engine(self, seen: Seen, written: list[ledger.Entry], slow: bool) -> None:
        known = tuple(
            one.id
            for one in [*written, *seen.entries]
            if one.kind == "engine" or one.facts.get("vm", {}).get("name") == "docker"
        )
        if known != self._known or (known and slow and not self._engine):
            self._known, self._engine, self._next = known, containers.running(), 0.0
            self._docker = self._engine and client(self._engine)
        seen.engine = self._engine
        if self._docker:
            chosen = {"label": containers.label()}
            with contextlib.suppress(Exception):  # it goes just now
                seen.containers = self._docker.containers(all=True, filters=chosen)

    def _list_images(self) -> list[str]:
        found: set[str] = set()
        if self._docker:
            own = containers.prefix() + "/"
            with contextlib.suppress(Exception):  # it goes just now
                for one in self._docker.images(filters={"label": containers.label()}):
                    found |= {tag for tag in one["RepoTags"] or [] if not tag.startswith(own)}
        return sorted(found - {"<none>:<none>"})

    def _ask_cluster(self, found: cluster.Cluster) -> Orchestrator:
        there = Orchestrator(found)
        own = "" if found.rung != "existing context" else f"/namespaces/{found.namespace}"
        try:
            api = self._apis.get(found.name) or self._apis.setdefault(found.name, found.api)
            pods = _listed(api, f"/api/v1{own}/pods")
            there.pods = [pod for pod in pods if pod["metadata"]["namespace"] not in SYSTEM]
            there.nodes = _listed(api, "/api/v1/nodes")
        except (ApiError, urllib3.exceptions.HTTPError, OSError, LookupError, ValueError):
            self._apis.pop(found.name, None)  # it comes or goes; or nodes are not ours to see
        return there


def memory_mb(pids: set[int]) -> int:
    """Return what processes hold in MB; what several share is counted once, where we may look."""
    held = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            held += ledger.holds(psutil.Process(pid))
    return held >> 20


def inside(ids: set[str]) -> set[int]:
    """Return the processes of this machine that run in containers, by the containers' ids."""
    found = set()
    for pid in _numbers() if ids else ():
        with contextlib.suppress(OSError):
            groups = Path(f"/proc/{pid}/cgroup").read_text()
            if any(one in groups for one in ids):
                found.add(pid)
    return found


def _processes() -> tuple[dict[str, list[int]], dict[str, list[int]], set[int]]:
    """Return our processes by the id of their entry in the ledger, and by the uid of their pod.

    The third are those that were told to use this LAB_HOME, such as the kernels of notebooks.
    """
    marks: dict[str, list[int]] = {}
    pods: dict[str, list[int]] = {}
    own, home = set(), b"LAB_HOME=" + bytes(ledger.home())
    for pid in _numbers():
        variables = _variables(pid)
        for name, value in MARKS.findall(variables) if b"LAB_" in variables else ():
            found = pods if name == b"LAB_POD_UID" else marks
            found.setdefault(value.decode(), []).append(pid)
        if home in variables.split(b"\0"):
            own.add(pid)
    return marks, pods, own


def _variables(pid: int) -> bytes:
    """Return the environment of a process; nothing if it is gone or somebody else's."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""


def _numbers() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def client(engine: containers.Engine):
    """Return Docker's own client for an Engine; it sets nothing in this process."""
    import docker

    options = docker.utils.kwargs_from_env(environment=engine.environment)
    return docker.APIClient(version="auto", timeout=5, **options)


def _listed(api: Api, path: str) -> list[dict]:
    """Return the objects at a path by name, out of the API's memory: that is cheap for it."""
    found = api.get(path, resourceVersion="0")["items"]
    return sorted(found, key=lambda one: one["metadata"]["name"])


def _cluster(name: str) -> cluster.Cluster | None:
    """Return a cluster that stands in the ledger, without seeing to what is left of a dead one."""
    folder = ledger.home() / "clusters" / name
    for about in ("lent.json", "cluster.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            known = json.loads((folder / about).read_text())
            return cluster.Cluster(name, known["rung"], folder, known.get("namespace", "default"))
    return None
