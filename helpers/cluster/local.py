"""Clusters of our own: a control plane, nodes, and the network between their pods."""

from __future__ import annotations

import fcntl
import json
import random
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from helpers import ledger, machine
from helpers.cluster import control, network
from helpers.cluster.agent.runtime import Settings
from helpers.cluster.api import Api, ApiError
from helpers.containers.certificates import Authority


class ClusterError(RuntimeError):
    """No cluster can be had; the message says why and what to do."""


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes cluster that answers.

    Attributes:
        name: its name.
        rung: what it is: ``existing context``, ``kind``, or what pods are in one of ours:
            ``docker``, ``docker in a VM`` or ``process``.
        folder: its files.
        namespace: where what one makes goes if nothing else is said.
    """

    name: str
    rung: str
    folder: Path
    namespace: str = "default"

    @property
    def kubeconfig(self) -> Path:
        """The file that leads clients to it, as its administrator."""
        return self.folder / "kubeconfig"

    @property
    def ours(self) -> bool:
        """Whether its control plane and nodes are processes of the course."""
        return self.rung in ("docker", "docker in a VM", "process")

    @property
    def facts(self) -> dict:
        """What is written down of one of ours: ``octet``, the API's ``port``, its ``release``."""
        return json.loads(_record(self.folder).read_text())

    @property
    def api(self) -> Api:
        """Its API, as its administrator."""
        return Api(self.kubeconfig)

    def nodes(self) -> list[str]:
        """Return the names of the nodes that run here, oldest first."""
        return [entry.facts["node"] for entry in self._entries() if "node" in entry.facts]

    def add_node(
        self,
        name: str = "",
        *,
        cpus: float = 0,
        memory_mb: int = 0,
        labels: dict[str, str] | None = None,
        taints: list[dict] | None = None,
        provider: str = "",
        logins: str = "",
    ) -> str:
        """Start a node and return its name; ``wait_ready`` tells when it may be used.

        Args:
            name: what it is called; ``node-1`` and so on if empty.
            cpus: processors that it offers; the machine's if 0. As all nodes share the machine,
                that is a promise, not a partition.
            memory_mb: memory that it offers; the machine's if 0.
            labels: labels of the Node.
            taints: taints of the Node.
            provider: its ``providerID``.
            logins: where it is told how it logs in to registries (a URL).
        """
        with open(self.folder / "nodes.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            here = self.folder / "nodes"
            taken = {json.loads(one.read_text())["index"] for one in here.glob("*/node.json")}
            index = next(k for k in range(1, 126) if k not in taken)
            name, facts = name or f"node-{index}", self.facts
            folder = here / name
            (folder / "pods").mkdir(parents=True, exist_ok=True)
            settings = Settings(
                name,
                index,
                facts["octet"],
                machine.loopback_address(),
                self.rung,
                cpus or machine.cores(),
                memory_mb or machine.facts()["memory_mb"],
                labels=labels or {},
                taints=taints or [],
                provider=provider,
                logins=logins,
            )
            (folder / "node.json").write_text(json.dumps(asdict(settings)))
        authority, address = Authority(self.folder), settings.address
        authority.issue(folder / "server", name, addresses=(address,), names=(name,))
        server, user = f"https://127.0.0.1:{facts['port']}", f"system:node:{name}"
        kubeconfig = folder / "kubeconfig"
        control.issue_kubeconfig(kubeconfig, self.name, server, authority, user, "system:nodes")
        words = [sys.executable, "-m", "helpers.cluster.agent", str(self.folder), name]
        told = {"cluster": self.name, "node": name}
        title, log = f"node {name} of {self.name}", folder / "agent.log"
        ledger.spawn(title, [*control.AGAIN, *words], log=log, facts=told, cwd=folder)
        return name

    def wait_ready(self, *names: str, seconds: float = 60) -> None:
        """Wait until nodes are Ready and the cluster takes pods for them.

        Raises:
            ClusterError: that is not so within so many seconds; for a node, the message ends with
                its log.
        """
        deadline, api = time.monotonic() + seconds, self.api
        while not takes_pods(api):
            if time.monotonic() > deadline:
                raise ClusterError(f"Cluster {self.name} takes no pods after {seconds} s.")
            time.sleep(0.05)
        for name in names:
            while not _ready(api, name):
                if time.monotonic() > deadline:
                    log = (self.folder / "nodes" / name / "agent.log").read_text(errors="replace")
                    said = (log.strip().splitlines() or ["nothing"])[-1]
                    raise ClusterError(f"Node {name} is not ready after {seconds} s: {said}")
                time.sleep(0.05)

    def unplug(self, name: str) -> None:
        """Let a node die as if its power had failed: it says nothing more, its pods are gone.

        Raises:
            ClusterError: no such node runs here.
        """
        entries = [entry for entry in self._entries() if entry.facts.get("node") == name]
        if not entries:
            there = ", ".join(self.nodes()) or "none"
            raise ClusterError(f"Node {name} is not one that runs here; these are: {there}.")
        for entry in entries:
            ledger.stop(entry, patience=0.5)
        _remove_containers(self, name)

    def remove_node(self, name: str) -> None:
        """Take a node away: its pods end, and the cluster forgets it."""
        if name in self.nodes():
            self.unplug(name)
        try:
            self.api.delete(f"/api/v1/nodes/{name}")
        except ApiError as problem:
            if problem.status != 404:
                raise
        shutil.rmtree(self.folder / "nodes" / name, ignore_errors=True)

    def delete(self) -> None:
        """Stop a cluster of ours and remove all that it had."""
        for entry in reversed(self._entries()):
            ledger.stop(entry)
        _remove_containers(self)

    def _entries(self) -> list[ledger.Entry]:
        return [one for one in ledger.entries() if one.facts.get("cluster") == self.name]


def create(name: str, *, webhook: str = "", rung: str = "") -> Cluster:
    """Start a cluster without nodes and return it once its API answers.

    Args:
        name: what it is called.
        webhook: a kubeconfig file that leads to whoever knows tokens, or empty.
        rung: what its pods are; the best that this machine can do if empty.

    Raises:
        ClusterError: it cannot be started, or there is one of that name.
    """
    folder = ledger.home() / "clusters" / name
    if folder.exists():
        raise ClusterError(f"There is a cluster {name} already.")
    ledger.record("files", f"files of cluster {name}", path=str(folder), cluster=name)
    folder.mkdir(mode=0o700, parents=True)
    found = Cluster(name, rung or machine.pods()[0], folder)
    if found.rung != "process":
        from helpers import containers

        containers.engine()
    try:
        about = _prepare(found)
        about |= control.start(folder, name, about["octet"], webhook)
        _record(folder).write_text(json.dumps(about))
        network.start(folder)
    except BaseException:
        found.delete()
        raise
    return found


def find(name: str) -> Cluster | None:
    """Return the cluster of ours of that name, if it runs.

    What is left of one that has died (with the machine, say) is removed.
    """
    folder = ledger.home() / "clusters" / name
    if not _record(folder).exists():
        return None
    found = Cluster(name, json.loads(_record(folder).read_text())["rung"], folder)
    if any(entry.kind == "process" and entry.alive() for entry in found._entries()):
        return found
    found.delete()
    return None


def run(words: list[str], problem: str) -> str:
    """Run a command and return what it prints.

    Raises:
        ClusterError: it fails; the message is the problem and the last line that it says.
    """
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise ClusterError(f"{problem}: {last}")
    return done.stdout


def _record(folder: Path) -> Path:
    return folder / "cluster.json"


def _prepare(found: Cluster) -> dict:
    """Find a free range of addresses, in which the cluster's pods can talk, and write it down."""
    problem = None
    for octet in random.SystemRandom().sample(range(64, 250), 20):
        about = {"name": found.name, "rung": found.rung, "octet": octet}
        _record(found.folder).write_text(json.dumps(about))
        try:
            network.prepare(found.folder, octet, found.name)
            return about
        except network.NetworkError as refused:
            if not refused.taken:
                raise ClusterError(str(refused)) from None
            problem = refused
    raise ClusterError(f"No range of addresses is free for the pods: {problem}")


def takes_pods(api: Api) -> bool:
    """Say whether the namespace ``default`` takes pods: whether its account has its token.

    That comes a moment after the API; until then Kubernetes 1.20 refuses to create a pod.
    """
    try:
        accounts = api.get("/api/v1/namespaces/default/serviceaccounts")["items"]
    except ApiError:
        return False
    return any(one.get("secrets") for one in accounts if one["metadata"]["name"] == "default")


def _ready(api: Api, name: str) -> bool:
    try:
        node = api.get(f"/api/v1/nodes/{name}")
    except ApiError:
        return False
    conditions = node.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _remove_containers(found: Cluster, node: str = "") -> None:
    """Remove what the Engine holds of a cluster or a node: containers, then networks, volumes.

    Others who share the Engine may have a cluster of the same name.
    """
    if found.rung == "process":
        return
    from helpers import containers

    labels = [containers.label(), f"lab.cluster={found.name}"] + [f"lab.node={node}"] * bool(node)
    chosen = ["-q", *(word for label in labels for word in ("--filter", f"label={label}"))]
    for kind, listing in (("container", ["ps", "-a"]), ("network", ["network", "ls"])):
        ids = _docker(*listing, *chosen).split()
        options = ["-f", "-v"] if kind == "container" else []
        if ids:
            _docker(kind, "rm", *options, *ids)
    if volumes := _docker("volume", "ls", *chosen).split():
        _docker("volume", "rm", *volumes)


def _docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True).stdout
