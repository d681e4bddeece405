"""Which Kubernetes to work with: a named context, kind, or a cluster of our own."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess

from helpers import ledger, machine
from helpers.cluster import local, programs
from helpers.cluster.local import Cluster, ClusterError, run

NAME = "lab"


def start(nodes: int = 1) -> Cluster:
    """Make sure that a Kubernetes API answers, point this process at it and return the cluster.

    It is shared by all notebooks and terminals of this LAB_HOME. ``LAB_KUBE_CONTEXT`` names a
    context of the learner's own: then everything goes into a namespace that is removed again.
    Otherwise it is kind where that works, unless ``LAB_CLUSTER=ours`` is set, or one of our own.

    Sets ``KUBECONFIG`` and, where the machine has no ``kubectl``, ``PATH``.

    Args:
        nodes: how many nodes it should have at least, where they are ours to start.

    Raises:
        ClusterError: none can be had; the message says why and what to do.
        ProgramError: a program that it needs cannot be had.
    """
    with open(ledger.home() / "cluster.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two notebooks may start it at once
        found = running()
        if not found and (context := os.environ.get("LAB_KUBE_CONTEXT")):
            with ledger.for_all():  # what is in it is the learner's to keep or to remove
                found = _context(context)
        elif not found and machine.kind().works:
            found = _kind(nodes)
        elif not found:
            from helpers import containers

            containers.release(machine.CLUSTER_MB + machine.ENGINE_MB)
            print("Starting Kubernetes (about 8 s) … ", end="", flush=True)
            found = local.create(NAME)
            print("done.", flush=True)
        if found.ours:
            ready = found.nodes()
            found.wait_ready(*ready, *[found.add_node() for _ in range(nodes - len(ready))])
        ledger.use(*[one for one in ledger.entries() if one.facts.get("cluster") == NAME])
    use(found)
    return found


def running() -> Cluster | None:
    """Return the cluster of this LAB_HOME if it runs. Nothing is started or set."""
    folder = ledger.home() / "clusters" / NAME
    about = folder / "lent.json"
    if about.exists():
        known = json.loads(about.read_text())
        if any(entry.facts.get("cluster") == NAME for entry in ledger.entries("command")):
            return Cluster(NAME, known["rung"], folder, known["namespace"])
    return local.find(NAME)


def use(found: Cluster) -> None:
    """Point this process, and what it starts from now on, at a cluster."""
    os.environ["KUBECONFIG"] = str(found.kubeconfig)
    provide_command()


def provide_command() -> None:
    """See to it that this process has a ``kubectl``; one is fetched where there is none."""
    if not shutil.which("kubectl"):
        os.environ["PATH"] += f":{programs.kubectl().parent}"


def _lend(rung: str, namespace: str, stop: list[str], alive: list[str]) -> Cluster:
    """Write down, before it is made, what is made outside of our own processes."""
    folder = ledger.home() / "clusters" / NAME
    ledger.record("files", f"files of cluster {NAME}", path=str(folder), cluster=NAME)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    title = f"{rung} of cluster {NAME}"
    ledger.record("command", title, alive=alive, stop=stop, cluster=NAME)
    about = {"rung": rung, "namespace": namespace}
    (folder / "lent.json").write_text(json.dumps(about))
    return Cluster(NAME, rung, folder, namespace)


def _context(context: str) -> Cluster:
    """Borrow a cluster that the learner has named; only a namespace of ours is touched."""
    from helpers import containers

    provide_command()
    problem = "The context that LAB_KUBE_CONTEXT names cannot be used"
    view = ["config", "view", "--minify", "--flatten", "--raw", "--context", context]
    config = run(["kubectl", *view], problem)
    namespace = containers.prefix()
    kubeconfig = str(ledger.home() / "clusters" / NAME / "kubeconfig")
    there = ["kubectl", "--kubeconfig", kubeconfig]
    alive = [*there, "get", "namespace", namespace, "--ignore-not-found", "-o", "name"]
    stop = [*there, "delete", "namespace", namespace, "--ignore-not-found"]
    found = _lend("existing context", namespace, stop, alive)
    found.kubeconfig.touch(mode=0o600)
    found.kubeconfig.write_text(config)
    run([*there, "config", "set-context", "--current", "--namespace", namespace], problem)
    run([*there, "create", "namespace", namespace], problem)
    return found


def _kind(nodes: int) -> Cluster:
    from helpers import containers

    name, address = containers.prefix(), machine.docker_socket()
    os.environ["DOCKER_HOST"] = address
    label = f"label=io.x-k8s.kind.cluster={name}"
    alive = ["docker", "--host", address, "ps", "-aq", "--filter", label]
    found = _lend("kind", "default", ["kind", "delete", "cluster", "--name", name], alive)
    roles = ["control-plane", *["worker"] * (nodes - 1)]
    layout = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4"}
    layout["nodes"] = [{"role": role} for role in roles]
    print("Starting Kubernetes with kind (about 40 s) … ", end="", flush=True)
    made = subprocess.run(
        ["kind", "create", "cluster", "--name", name, "--config", "-", "--wait", "120s"]
        + ["--kubeconfig", str(found.kubeconfig)],
        input=json.dumps(layout),
        capture_output=True,
        text=True,
    )
    if made.returncode:
        raise ClusterError(
            f"kind could not make a cluster: {made.stderr.strip().splitlines()[-1]} "
            "LAB_CLUSTER=ours does without it."
        )
    print("done.", flush=True)
    return found
