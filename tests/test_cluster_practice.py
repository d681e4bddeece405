"""What a practitioner's first month uses, by two kubectl (the machine's, Debian's) and Python."""

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from kube import lab  # noqa: F401
from waiting import page, until

from helpers import cluster
from helpers.vm import packages

APP = Path(__file__).parents[1] / "data/app"
SECRET = "0123456789abcdef0123456789abcdef"


def deployment(name, image, replicas=2, **container):
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    one = {
        "name": "api",
        "image": image,
        "env": [{"name": "JWT_SECRET", "value": SECRET}, {"name": "WEB_CONCURRENCY", "value": "1"}],
        "ports": [{"containerPort": 8080, "name": "http"}],
        "readinessProbe": probe,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [one | container], "terminationGracePeriodSeconds": 5},
            },
        },
    }


@pytest.fixture(scope="module")
def api(lab):  # noqa: F811
    """The web API in two versions, as images for this cluster's nodes."""
    second = lab.folder / "second"
    shutil.copytree(APP, second)
    source = (second / "api.py").read_text()
    (second / "api.py").write_text(source.replace('VERSION = "1"', 'VERSION = "2"'))
    return [cluster.image("web-api:1", APP), cluster.image("web-api:2", second)]


@pytest.fixture
def kubectl(lab, tmp_path, monkeypatch):  # noqa: F811
    """A function that runs kubectl in a namespace of its own.

    It is the machine's where pods are containers, and Debian's, which is older, where not.
    """
    program = shutil.which("kubectl")
    if lab.rung == "process" or not program:
        program = str(packages.program("kubectl", "kubernetes-client", "kubectl"))
    name = f"practice-{os.urandom(3).hex()}"
    config = tmp_path / "kubeconfig"
    shutil.copy(lab.kubeconfig, config)
    monkeypatch.setenv("KUBECONFIG", str(config))

    def run(*words, given=None, check=True):
        text = given if given is None or isinstance(given, str) else json.dumps(given)
        done = subprocess.run(
            [program, *words], input=text, capture_output=True, text=True, timeout=120
        )
        if not check:
            return done
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.program = program
    run("create", "namespace", name)
    run("config", "set-context", "--current", "--namespace", name)
    yield run
    run("delete", "namespace", name, "--wait=false")


def node_address(run):
    (node, *_) = json.loads(run("get", "nodes", "-o", "json"))["items"]
    return next(o["address"] for o in node["status"]["addresses"] if o["type"] == "InternalIP")


def test_a_deployment_from_apply_to_undo(kubectl, api):
    kubectl("apply", "-f", "-", given=deployment("web", api[0]))
    assert "successfully rolled out" in kubectl(
        "rollout", "status", "deployment/web", "--timeout=90s"
    )
    assert "unchanged" in kubectl("apply", "-f", "-", given=deployment("web", api[0]))
    kubectl("expose", "deployment", "web", "--type=NodePort", "--port=80", "--target-port=http")
    port = kubectl("get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}")
    url = f"http://{node_address(kubectl)}:{port}/"
    assert until(lambda: '"1"' in page(url))
    wide = kubectl("get", "pods", "-o", "wide")
    assert wide.count("1/1") == 2 and "node-1" in wide
    kubectl("set", "image", "deployment/web", f"api={api[1]}")
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    assert until(lambda: '"2"' in page(url))
    assert kubectl("rollout", "history", "deployment/web").count("<none>") == 2
    kubectl("rollout", "undo", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    assert until(lambda: '"1"' in page(url))
    kubectl("scale", "deployment/web", "--replicas=3")
    kubectl("wait", "deployment/web", "--for=condition=available", "--timeout=90s")
    until(lambda: kubectl("get", "deploy", "web", "-o", "jsonpath={.status.readyReplicas}") == "3")
    said = kubectl("describe", "deployment", "web")
    assert "ScalingReplicaSet" in said and "3 available" in said
    kubectl("rollout", "restart", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")


def test_logs_exec_copy_and_forwarded_ports(kubectl, api, tmp_path):
    kubectl("apply", "-f", "-", given=deployment("web", api[0], replicas=1))
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    (pod,) = kubectl("get", "pods", "-o", "name").split()
    pod = pod.removeprefix("pod/")
    follow = subprocess.Popen(
        [kubectl.program, "logs", "-f", pod], stdout=subprocess.PIPE, text=True
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    forward = subprocess.Popen(
        [kubectl.program, "port-forward", f"pod/{pod}", f"{port}:8080"], stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: "healthy" in page(f"http://127.0.0.1:{port}/"))
        page(f"http://127.0.0.1:{port}/only-here")
        assert any("/only-here" in line for line in iter(follow.stdout.readline, ""))
    finally:
        for one in (follow, forward):
            one.kill()
            one.wait()
    said = kubectl("exec", "-i", pod, "--", "sh", "-c", "cat; echo to-err >&2", given="to-out")
    assert said == "to-out"
    assert kubectl("exec", pod, "--", "sh", "-c", "exit 7", check=False).returncode == 7
    assert "Listening at" in kubectl("logs", pod, "--tail=50")
    big = tmp_path / "big"
    big.write_bytes(os.urandom(3_000_000))
    where = "/tmp/" + os.urandom(4).hex()  # a process pod shares the machine's /tmp
    kubectl("cp", str(big), f"{pod}:{where}")
    kubectl("cp", f"{pod}:{where}", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    kubectl("exec", pod, "--", "rm", where)


def test_apply_on_the_server_diff_dry_run_and_explain(kubectl):
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}
    kubectl("apply", "--server-side", "-f", "-", given=settings | {"data": {"a": "1"}})
    changed = kubectl("diff", "-f", "-", given=settings | {"data": {"a": "2"}}, check=False)
    assert changed.returncode == 1 and "+  a:" in changed.stdout
    kubectl("apply", "--dry-run=server", "-f", "-", given=settings | {"data": {"a": "3"}})
    assert kubectl("get", "cm", "settings", "-o", "jsonpath={.data.a}") == "1"
    drawn = kubectl("create", "deployment", "x", "--image=y:1", "--dry-run=client", "-o", "yaml")
    assert "kind: Deployment" in drawn
    assert "readinessProbe" in kubectl("explain", "pod.spec.containers")
    kubectl("label", "cm", "settings", "team=blue")
    kubectl("annotate", "cm", "settings", "why=test")
    kubectl("patch", "cm", "settings", "-p", '{"data": {"b": "4"}}')
    said = json.loads(kubectl("get", "cm", "-l", "team=blue", "-o", "json"))["items"][0]
    assert said["data"] == {"a": "1", "b": "4"} and said["metadata"]["annotations"]["why"] == "test"


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"kind": "Pod"}, "apiVersion not set"),
        (
            {"apiVersion": "v1", "kind": "Pot", "metadata": {"name": "x"}},
            'no matches for kind "Pot"',
        ),
        (deployment("UPPER", "x:1"), "lowercase"),
        (deployment("web", "x:1", ports=[{"containerPort": 99999}]), "between 1 and 65535"),
        (deployment("web", "x:1", replicas=-1), "must be greater than or equal to 0"),
        (
            deployment("web", "x:1")
            | {
                "spec": deployment("web", "x:1")["spec"] | {"selector": {"matchLabels": {"a": "b"}}}
            },
            "`selector` does not match template `labels`",
        ),
    ],
    ids=["no version", "no such kind", "name", "port", "replicas", "selector"],
)
def test_a_wrong_manifest_is_refused_in_kubernetes_words(kubectl, broken, told):
    said = kubectl("apply", "-f", "-", given=broken, check=False)
    assert said.returncode and told in said.stderr


def test_what_cannot_run_says_why(kubectl, api):
    kubectl("apply", "-f", "-", given=deployment("no-image", "no-such-image:1"))
    kubectl(
        "apply",
        "-f",
        "-",
        given=deployment("no-config", api[0], envFrom=[{"configMapRef": {"name": "gone"}}]),
    )
    greedy = {"requests": {"cpu": "900"}}
    kubectl("apply", "-f", "-", given=deployment("greedy", api[0], resources=greedy))
    kubectl("apply", "-f", "-", given=deployment("crashes", api[0], command=["false"]))
    for name, state in (
        ("no-image", "ImagePullBackOff"),
        ("no-config", "CreateContainerConfigError"),
        ("greedy", "Pending"),
        ("crashes", "CrashLoopBackOff"),
    ):
        until(lambda name=name, state=state: state in kubectl("get", "pods", "-l", f"app={name}"))
    assert 'configmap "gone" not found' in kubectl("describe", "pods", "-l", "app=no-config")
    events = kubectl("get", "events")
    assert "Insufficient cpu" in events and "no-such-image:1" in events


def test_jobs_stateful_sets_and_daemon_sets(kubectl, api):
    kubectl("create", "job", "once", f"--image={api[0]}", "--", "sh", "-c", "echo counted to 3")
    kubectl("wait", "job/once", "--for=condition=complete", "--timeout=90s")
    assert kubectl("logs", "job/once") == "counted to 3\n"
    kubectl("create", "job", "fails", f"--image={api[0]}", "--", "sh", "-c", "exit 3")
    until(lambda: "Error" in kubectl("get", "pods", "-l", "job-name=fails"))
    made = deployment("db", api[0], replicas=2)
    made |= {"kind": "StatefulSet", "spec": made["spec"] | {"serviceName": "db"}}
    kubectl("apply", "-f", "-", given=made)
    kubectl("rollout", "status", "statefulset/db", "--timeout=90s")
    assert kubectl("get", "pods", "-l", "app=db", "-o", "name").split() == ["pod/db-0", "pod/db-1"]
    each = deployment("agent", api[0]) | {"kind": "DaemonSet"}
    del each["spec"]["replicas"]
    kubectl("apply", "-f", "-", given=each)
    kubectl("rollout", "status", "daemonset/agent", "--timeout=90s")
    assert len(kubectl("get", "pods", "-l", "app=agent", "-o", "name").split()) == 1


def test_quotas_and_rights(kubectl):
    kubectl("create", "quota", "few", "--hard=configmaps=3")
    until(lambda: "configmaps" in kubectl("describe", "quota", "few"))
    for number in range(3):
        kubectl("create", "configmap", f"c{number}", check=False)
    said = kubectl("create", "configmap", "one-more", check=False)
    assert "exceeded quota: few" in said.stderr
    kubectl("create", "serviceaccount", "reader")
    kubectl("create", "role", "read", "--verb=get,list", "--resource=pods")
    kubectl(
        "create",
        "rolebinding",
        "read",
        "--role=read",
        f"--serviceaccount={namespace(kubectl)}:reader",
    )
    who = f"--as=system:serviceaccount:{namespace(kubectl)}:reader"
    assert kubectl("auth", "can-i", "list", "pods", who) == "yes\n"
    assert kubectl("auth", "can-i", "delete", "pods", who, check=False).stdout.strip() == "no"
    said = kubectl("get", "secrets", who, check=False)
    assert "cannot list resource" in said.stderr


def namespace(run):
    return run("config", "view", "--minify", "-o", "jsonpath={..namespace}")


def test_a_node_is_cordoned_and_drained(kubectl, api, lab):  # noqa: F811
    other = lab.add_node()
    try:
        lab.wait_ready(other)
        kubectl("apply", "-f", "-", given=deployment("web", api[0], replicas=2))
        kubectl("rollout", "status", "deployment/web", "--timeout=90s")
        kubectl("drain", other, "--ignore-daemonsets", "--force", "--timeout=90s")
        assert "SchedulingDisabled" in kubectl("get", "node", other)
        kubectl("rollout", "status", "deployment/web", "--timeout=90s")
        assert other not in kubectl(
            "get", "pods", "-o", "wide", "--field-selector=status.phase=Running"
        )
        kubectl("uncordon", other)
        assert "SchedulingDisabled" not in kubectl("get", "node", other)
    finally:
        lab.remove_node(other)


def test_custom_resources_and_a_watch(kubectl):
    kind = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "notes.course.example"},
        "spec": {
            "group": "course.example",
            "scope": "Namespaced",
            "names": {"plural": "notes", "singular": "note", "kind": "Note"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": {
                                    "type": "object",
                                    "properties": {"text": {"type": "string"}},
                                }
                            },
                        }
                    },
                }
            ],
        },
    }
    kubectl("apply", "-f", "-", given=kind)
    kubectl("wait", "crd/notes.course.example", "--for=condition=established", "--timeout=60s")
    watch = subprocess.Popen(
        [kubectl.program, "get", "configmaps", "-w", "-o", "name"],
        stdout=subprocess.PIPE,
        text=True,
    )
    note = {"apiVersion": "course.example/v1", "kind": "Note", "metadata": {"name": "n"}}
    until(
        lambda: (
            not kubectl(
                "apply", "-f", "-", given=note | {"spec": {"text": "hi"}}, check=False
            ).returncode
        )
    )
    assert "hi" in kubectl("get", "notes", "n", "-o", "yaml")
    wrong = kubectl("apply", "-f", "-", given=note | {"spec": {"text": 5}}, check=False)
    assert "must be of type string" in wrong.stderr
    kubectl("create", "configmap", "seen-by-the-watch")
    assert any("seen-by-the-watch" in line for line in iter(watch.stdout.readline, ""))
    watch.kill()
    watch.wait()


def test_the_python_client_does_the_same(lab, api):  # noqa: F811
    from kubernetes import client, config, watch
    from kubernetes.stream import portforward, stream

    config.load_kube_config(str(lab.kubeconfig))
    core, apps = client.CoreV1Api(), client.AppsV1Api()
    where = f"python-{os.urandom(3).hex()}"
    core.create_namespace({"metadata": {"name": where}})
    try:
        until(lambda: core.list_namespaced_service_account(where).items)
        apps.create_namespaced_deployment(where, deployment("web", api[0], replicas=1))
        for event in watch.Watch().stream(core.list_namespaced_pod, where, timeout_seconds=90):
            pod = event["object"]
            if any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or []):
                break
        name = pod.metadata.name
        command = {"command": ["echo", "hello"], "stdout": True, "stderr": True}
        said = stream(core.connect_get_namespaced_pod_exec, name, where, **command)
        assert said == "hello\n"
        assert "Listening" in core.read_namespaced_pod_log(name, where)
        tunnel = portforward(core.connect_get_namespaced_pod_portforward, name, where, ports="8080")
        link = tunnel.socket(8080)
        link.setblocking(True)
        link.sendall(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        answer = b""
        deadline = time.monotonic() + 30
        while b"healthy" not in answer and time.monotonic() < deadline:
            answer += link.recv(65536)
        assert b"healthy" in answer
        apps.patch_namespaced_deployment_scale("web", where, {"spec": {"replicas": 2}})
        until(lambda: apps.read_namespaced_deployment("web", where).status.ready_replicas == 2)
        with pytest.raises(client.ApiException) as refused:
            core.create_namespaced_pod(
                where, {"metadata": {"name": "x"}, "spec": {"containers": []}}
            )
        assert refused.value.status == 422
    finally:
        core.delete_namespace(where)
