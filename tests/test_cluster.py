"""A cluster as a learner has it: it starts, survives what dies, and leaves nothing."""

import json
import os
import subprocess
import sys

import psutil
import pytest
from kube import kubectl, lab, read  # noqa: F401
from waiting import until

from helpers import cluster, containers, ledger, machine
from helpers.cluster import programs, versions


def processes(word):
    """The processes of this home whose command line has a word."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = str(ledger.home()) in " ".join(process.environ().get("LAB_HOME", "").split())
            if ours and any(word in part for part in process.cmdline()[:2]):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_a_cluster_has_a_node_that_is_ready(lab):  # noqa: F811
    (node,) = read("nodes")["items"]
    assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith(lab.rung)
    assert "Ready" in kubectl("get", "nodes")


def test_starting_again_finds_the_same_cluster(lab):  # noqa: F811
    assert cluster.start() == lab
    assert len(read("nodes")["items"]) == 1


def test_a_second_node_joins_and_leaves(lab):  # noqa: F811
    name = lab.add_node(labels={"disk": "fast"}, taints=[{"key": "only", "effect": "NoSchedule"}])
    lab.wait_ready(name)
    assert name in kubectl("get", "nodes", "-l", "disk=fast")
    lab.remove_node(name)
    assert name not in kubectl("get", "nodes")
    assert lab.nodes() == ["node-1"]


def test_process_pods_find_what_the_course_has_installed(lab, monkeypatch, tmp_path):  # noqa: F811
    if lab.rung != "process":
        pytest.skip("a container has its own programs")
    (tmp_path / "Dockerfile").write_text('FROM x\nCMD ["gunicorn", "--version"]\n')
    image = cluster.image("server:1", tmp_path)
    with monkeypatch.context() as patch:  # as for one who has not activated the environment
        patch.setenv("PATH", "/usr/bin:/bin")
        node = lab.add_node()
    lab.wait_ready(node)
    where = {"spec": {"nodeName": node}}
    options = ["--restart=Never", f"--overrides={json.dumps(where)}"]
    kubectl("run", "server", f"--image={image}", *options)
    until(lambda: "Completed" in kubectl("get", "pod", "server"))
    lab.remove_node(node)


def test_strangers_are_not_answered(lab):  # noqa: F811
    server = read("nodes")["items"][0]["status"]["addresses"]
    address = next(one["address"] for one in server if one["type"] == "InternalIP")
    for port in (10250, None):
        url = f"https://{address}:10250/healthz" if port else f"{lab.api.server}/api/v1/nodes"
        words = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", url]
        said = subprocess.run(words, capture_output=True, text=True)
        assert said.returncode or said.stdout in ("401", "403")


@pytest.mark.parametrize("part", ["kube-apiserver", "etcd", "kube-controller-manager"])
def test_a_part_that_is_killed_comes_back(lab, part):  # noqa: F811
    (victim,) = [one for one in processes(part) if one.name() != "sh"]
    victim.kill()
    name = f"after-{part}"
    until(lambda: kubectl("create", "namespace", name, check=False).returncode == 0)
    # Its service account is made by the controller manager.
    until(lambda: kubectl("-n", name, "get", "sa", "default", check=False).returncode == 0)


def test_two_clusters_do_not_meet(lab):  # noqa: F811
    other = cluster.create("other")
    try:
        there = ["kubectl", "--kubeconfig", str(other.kubeconfig), "get", "nodes", "-o", "name"]
        assert subprocess.run(there, capture_output=True, text=True, check=True).stdout == ""
        assert "node/node-1" in kubectl("get", "nodes", "-o", "name")
        with pytest.raises(cluster.ClusterError, match="already"):
            cluster.create("other")
    finally:
        other.delete()
    assert not other.folder.exists()


def test_a_context_that_is_named_is_only_lent(lab, home, monkeypatch):  # noqa: F811
    monkeypatch.setenv("KUBECONFIG", str(lab.kubeconfig))
    monkeypatch.setenv("LAB_KUBE_CONTEXT", "lab")
    lent = cluster.start()
    assert lent.rung == "existing context" and not lent.ours
    kubectl("create", "configmap", "mine")
    assert os.environ["KUBECONFIG"] == str(lent.kubeconfig) != str(lab.kubeconfig)
    there = ["kubectl", "--kubeconfig", str(lab.kubeconfig), "get"]
    assert subprocess.run([*there, "ns", lent.namespace], capture_output=True).returncode == 0
    assert subprocess.run([*there, "cm", "mine"], capture_output=True).returncode != 0
    assert ledger.down() == []
    assert subprocess.run([*there, "ns", lent.namespace], capture_output=True).returncode != 0
    assert subprocess.run([*there, "nodes"], capture_output=True).returncode == 0


def test_a_context_that_is_not_there_is_told(home, monkeypatch):
    monkeypatch.setenv("LAB_KUBE_CONTEXT", "no-such-context")
    monkeypatch.setenv("KUBECONFIG", "/dev/null")
    with pytest.raises(cluster.ClusterError, match="no-such-context"):
        cluster.start()


def test_the_command_line_starts_and_stops_it(home, monkeypatch):
    monkeypatch.setenv("LAB_PODS", "process")
    helpers = [sys.executable, "-m", "helpers"]
    said = subprocess.run([*helpers, "up", "cluster"], capture_output=True, text=True, check=True)
    assert "Kubernetes answers (process, namespace default)" in said.stdout
    env = subprocess.run([*helpers, "env"], capture_output=True, text=True).stdout
    assert "export KUBECONFIG=" in env
    status = subprocess.run([*helpers, "status"], capture_output=True, text=True).stdout
    assert "node node-1 of lab" in status
    subprocess.run([*helpers, "down"], check=True)
    until(lambda: not processes("kube-"))
    assert not cluster.running()


def test_a_cluster_whose_machine_was_switched_off_is_made_anew(home, monkeypatch):
    monkeypatch.setenv("LAB_PODS", "process")
    monkeypatch.setenv("LAB_CLUSTER", "ours")
    cluster.start()
    for entry in ledger.entries("process"):  # as a power cut does: nothing is told
        for process in psutil.process_iter():
            try:
                if process.environ().get(ledger.MARK) == entry.id:
                    process.kill()
            except (psutil.Error, OSError):
                continue
    assert cluster.running() is None
    cluster.start()
    assert "node-1" in kubectl("get", "nodes")


@pytest.mark.skipif(not machine.docker_engine().works, reason="no Docker Engine")
def test_a_cluster_that_goes_leaves_nothing_and_others_alone(home):
    containers.engine()
    containers.image("debian:stable-slim")
    docker = lambda *words: subprocess.check_output(["docker", *words], text=True).strip()  # noqa: E731
    labels = ("lab=another", "lab.cluster=lab", "lab.node=node-1")
    options = [word for label in labels for word in ("--label", label)]
    others = docker("create", *options, "debian:stable-slim")
    try:
        found = cluster.create("lab", rung="docker")
        assert docker("network", "ls", "-q", "--filter", f"label={containers.label()}")
        found.add_node()
        found.unplug("node-1")
        found.delete()
        assert others in docker("ps", "-aq", "--no-trunc")
        for listing in (["ps", "-aq"], ["network", "ls", "-q"]):
            assert not docker(*listing, "--filter", f"label={containers.label()}")
    finally:
        docker("rm", "-f", others)


def test_without_programs_it_says_what_is_missing(home, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    with pytest.raises(cluster.ProgramError, match="kube-apiserver"):
        cluster.create("lab", rung="process")
    assert not ledger.entries()


def test_every_option_of_a_version_is_known_to_it():
    found = programs.find()
    for part, command in found.commands.items():
        said = subprocess.run([*command, "--help"], capture_output=True, text=True)
        for option in versions.flags(part, found.version):
            assert f"{option.split('=')[0]} " in said.stdout + said.stderr, part


@pytest.mark.parametrize(
    ("free", "expected"), [(8000, "docker in a VM"), (900, "process")], ids=["much", "little"]
)
def test_without_an_engine_memory_decides_what_pods_are(monkeypatch, free, expected):
    monkeypatch.delenv("LAB_PODS", raising=False)
    monkeypatch.setenv("LAB_ENGINE", "vm")
    monkeypatch.setattr(machine, "facts", lambda: {"memory_free_mb": free})
    rung, why = machine.pods()
    assert rung == expected and why
