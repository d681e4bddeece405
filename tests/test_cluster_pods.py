"""What a node makes of pods, seen through the API, as containers and as processes."""

import json
import signal
import socket
import uuid

import docker
import psutil
import pytest
from kube import kubectl, lab, read  # noqa: F401
from waiting import page, until

from helpers import cluster

DOCKERFILE = """\
FROM python:3-slim
ENV GREETING=hello
CMD ["python3", "-m", "http.server", "8080"]
"""
PORT = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}


@pytest.fixture(scope="module")
def image(lab, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("image")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return cluster.image("tool:1", folder)


@pytest.fixture
def run(lab, image):  # noqa: F811
    """A function that creates a pod and returns its name; it is removed after the test."""
    made = []

    def create(*commands, init=(), metadata=None, spec=None, **container):
        def one(index, command):
            given = {"command": ["sh", "-c", command]} if command else {}
            return {"name": f"c{index}", "image": image, **given, **container}

        meta = {"name": f"p-{uuid.uuid4().hex[:8]}", **(metadata or {})}
        body = {"terminationGracePeriodSeconds": 1, **(spec or {})}
        body["containers"] = [one(index, command) for index, command in enumerate(commands)]
        body["initContainers"] = [
            {"name": f"i{index}", "image": image, "command": ["sh", "-c", command]}
            for index, command in enumerate(init)
        ]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body}
        kubectl("create", "-f", "-", given=pod)
        made.append(meta["name"])
        return meta["name"]

    yield create
    for name in made:
        kubectl("delete", "pod", name, "--ignore-not-found", "--wait=false")


@pytest.fixture
def config():
    """A ConfigMap and a Secret."""
    kubectl("create", "configmap", "conf", "--from-literal=LEVEL=debug", "--from-literal=a.txt=one")
    kubectl("create", "secret", "generic", "secret", "--from-literal=password=hush")
    yield
    kubectl("delete", "configmap/conf", "secret/secret")


@pytest.fixture
def containers_only(lab):  # noqa: F811
    if lab.rung == "process":
        pytest.skip("processes are not isolated and not limited")


def status(name):
    return read("pod", name)["status"]


def first(name):
    """The status of a pod's first container, empty before there is one."""
    return status(name).get("containerStatuses", [{"state": {}, "lastState": {}}])[0]


def ended(container):
    """The exit code with which a container has ended, the last time or for good."""
    states = container["state"], container["lastState"]
    return next((one["terminated"]["exitCode"] for one in states if "terminated" in one), None)


def waiting(name, reason):
    """Wait until a container waits for this reason, and return the message."""

    def there():
        found = first(name)["state"].get("waiting", {})
        return found if found.get("reason") == reason else None

    return until(there).get("message", "")


def phase(name, *wanted):
    return until(lambda: status(name)["phase"] in wanted and status(name)["phase"])


def ready(name):
    conditions = {one["type"]: one["status"] for one in status(name).get("conditions", [])}
    return conditions.get("Ready") == "True"


def events(name):
    """The reasons and messages of a pod's events."""
    every = read("events", "--field-selector", f"involvedObject.name={name}")["items"]
    return {one["reason"]: one["message"] for one in every}


def address(lab, name):  # noqa: F811
    """Where this machine reaches a pod."""
    found = status(name)["podIP"]
    return "127" + found[2:] if lab.rung == "process" else found


def test_a_node_says_what_it_offers_and_that_it_lives(lab):  # noqa: F811
    node = read("node", "node-1")
    assert {"cpu", "memory", "pods"} <= node["status"]["allocatable"].keys()
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "node-1"
    conditions = {one["type"]: one["status"] for one in node["status"]["conditions"]}
    assert conditions == {
        "Ready": "True",
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
    }

    def renewed():
        return read("-n", "kube-node-lease", "lease", "node-1")["spec"]["renewTime"]

    before = renewed()
    until(lambda: renewed() != before)


def test_pods_listen_on_the_same_port_at_addresses_of_their_own(lab, run):  # noqa: F811
    names = [run(None, readinessProbe=PORT) for _ in range(3)]
    until(lambda: all(ready(name) for name in names))
    assert len({status(name)["podIP"] for name in names}) == 3
    for name in names:
        assert "Directory listing" in page(f"http://{address(lab, name)}:8080")
    told = events(names[0])
    assert {"Scheduled", "Pulled", "Created", "Started"} <= told.keys()
    assert told["Started"] == "Started container c0"


def test_containers_of_a_pod_meet_at_localhost(run):
    ask = "import urllib.request as u; u.urlopen('http://localhost:8080').read()"
    name = run(None, f'until python3 -c "{ask}"; do sleep 0.2; done; exit 9')

    until(lambda: status(name)["phase"] == "Running")
    until(lambda: 9 in (ended(one) for one in status(name)["containerStatuses"]))


def test_variables_come_from_everywhere(run, config):
    field = {"fieldRef": {"fieldPath": "metadata.labels['app']"}}
    resource = {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}
    optional = {"configMapKeyRef": {"name": "none", "key": "none", "optional": True}}
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(LEVEL)-$$(A)-$(NONE)"},
        {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "password"}}},
        {"name": "APP", "valueFrom": field},
        {"name": "MEMORY", "valueFrom": resource},
        {"name": "OPTIONAL", "valueFrom": optional},
    ]
    found = "$LEVEL,$B,$PW,$APP,$MEMORY,${OPTIONAL-unset},$GREETING,$KUBERNETES_SERVICE_PORT,$0"
    wanted = "debug,1-debug-$(A)-$(NONE),hush,web,64,unset,hello,443,debug"
    name = run(
        f"test \"{found}\" = '{wanted.replace('$(', '$$(')}'",
        metadata={"labels": {"app": "web"}},
        spec={"restartPolicy": "Never"},
        args=["$(LEVEL)"],
        env=env,
        envFrom=[{"configMapRef": {"name": "conf"}}],
        resources={"limits": {"memory": "64Mi"}},
    )
    assert phase(name, "Succeeded", "Failed") == "Succeeded"


def test_what_is_missing_is_named_and_awaited(run):
    name = run("sleep 100", envFrom=[{"configMapRef": {"name": "late"}}])
    assert waiting(name, "CreateContainerConfigError") == 'configmap "late" not found'
    kubectl("create", "configmap", "late", "--from-literal=x=1")
    try:
        until(lambda: ready(name))
        reference = {"configMapKeyRef": {"name": "late", "key": "y"}}
        other = run("sleep 100", env=[{"name": "Y", "valueFrom": reference}])
        message = waiting(other, "CreateContainerConfigError")
        assert message == "couldn't find key y in ConfigMap default/late"
    finally:
        kubectl("delete", "configmap", "late")


def test_volumes_hold_what_they_should(run, config, containers_only):
    volumes = [
        {"name": "work", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "conf", "configMap": {"name": "conf", "defaultMode": 0o444}},
        {
            "name": "all",
            "projected": {
                "sources": [
                    {"secret": {"name": "secret", "items": [{"key": "password", "path": "p/w"}]}},
                    {
                        "downwardAPI": {
                            "items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]
                        }
                    },
                    {"serviceAccountToken": {"path": "token"}},
                ]
            },
        },
    ]
    mounts = [
        {"name": "work", "mountPath": "/work"},
        {"name": "work", "mountPath": "/part", "subPath": "part"},
        {"name": "memory", "mountPath": "/memory"},
        {"name": "conf", "mountPath": "/conf"},
        {"name": "conf", "mountPath": "/etc/one.txt", "subPath": "a.txt"},
        {"name": "all", "mountPath": "/all"},
    ]
    checks = [
        "test $(cat /conf/a.txt)$(cat /etc/one.txt)$(cat /all/p/w) = oneonehush",
        "test $(cat /all/name) = volumes",
        "test -L /conf/a.txt && test $(stat -Lc %a /conf/a.txt) = 444",
        "! touch /conf/new",
        "test $(cut -d. -f1 /all/token | wc -c) -gt 20",
        "grep -q ' /memory tmpfs' /proc/mounts",
        "test -s /var/run/secrets/kubernetes.io/serviceaccount/token",
        "id -u | grep -qx 1000",
        "touch /work/$(hostname) /part/x",
    ]
    meet = "until test -e /work/c0 -a -e /work/c1; do sleep 0.1; done"
    name = run(
        *(" && ".join([*checks, f"touch /work/c{one}", meet]) for one in range(2)),
        metadata={"name": "volumes"},
        spec={
            "restartPolicy": "Never",
            "volumes": volumes,
            "securityContext": {"runAsUser": 1000},
        },
        volumeMounts=mounts,
    )
    assert phase(name, "Succeeded", "Failed") == "Succeeded"
    volume = run("true", spec={"volumes": [{"name": "v", "secret": {"secretName": "none"}}]})
    until(lambda: "FailedMount" in events(volume))
    assert 'secret "none" not found' in events(volume)["FailedMount"]
    assert waiting(volume, "ContainerCreating") == ""


def test_a_mounted_config_map_is_kept_up_to_date(run, config, containers_only):
    name = run(
        "until grep -q two /conf/a.txt; do sleep 0.2; done",
        spec={
            "restartPolicy": "Never",
            "volumes": [{"name": "conf", "configMap": {"name": "conf"}}],
        },
        volumeMounts=[{"name": "conf", "mountPath": "/conf"}],
    )
    phase(name, "Running")
    kubectl("patch", "configmap", "conf", "-p", json.dumps({"data": {"a.txt": "two"}}))
    assert phase(name, "Succeeded", "Failed") == "Succeeded", status(name)


def test_a_claim_outlives_its_pods(run, containers_only):
    meta = {"name": "data"}
    size = {"storage": "1Gi"}
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand"}
    volume = {"capacity": size, "hostPath": {"path": "/data"}, **common}
    claim = {"resources": {"requests": size}, **common}
    for kind, spec in (("PersistentVolume", volume), ("PersistentVolumeClaim", claim)):
        body = {"apiVersion": "v1", "kind": kind, "metadata": meta, "spec": spec}
        kubectl("create", "-f", "-", given=body)
    spec = {
        "restartPolicy": "Never",
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
    }
    mounts = [{"name": "d", "mountPath": "/data"}]
    for command in ("echo kept > /data/x", "grep kept /data/x"):
        name = run(command, spec=spec, volumeMounts=mounts)
        assert phase(name, "Succeeded", "Failed") == "Succeeded"
        kubectl("delete", "pod", name)
    kubectl("delete", "pvc/data", "pv/data")


def test_a_container_that_crashes_is_restarted_later_and_later(lab, run):  # noqa: F811
    name = run("echo why > /dev/termination-log; exit 3" if lab.rung == "docker" else "exit 3")
    assert "back-off 10s restarting failed container=c0" in waiting(name, "CrashLoopBackOff")
    found = first(name)
    assert found["restartCount"] == 1
    last = found["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (3, "Error")
    if lab.rung == "docker":
        assert last["message"] == "why\n"
    assert status(name)["phase"] == "Running"
    until(lambda: first(name)["restartCount"] == 2)
    counts = {
        one["reason"]: one.get("count")
        for one in read("events", "--field-selector", f"involvedObject.name={name}")["items"]
    }
    assert counts["Started"] == 3


@pytest.mark.parametrize(
    ("policy", "command", "end", "code"),
    [("OnFailure", "exit 0", "Succeeded", 0), ("Never", "exit 4", "Failed", 4)],
)
def test_what_is_done_stays_done(run, policy, command, end, code):
    name = run(command, spec={"restartPolicy": policy})
    assert phase(name, "Succeeded", "Failed") == end
    assert first(name)["state"]["terminated"]["exitCode"] == code
    assert first(name)["restartCount"] == 0


def test_init_containers_come_first_and_in_order(run):
    name = run("sleep 100", init=["sleep 0.3", "exit 0"])
    until(lambda: ready(name))
    done = [one["state"]["terminated"] for one in status(name)["initContainerStatuses"]]
    assert [one["exitCode"] for one in done] == [0, 0]
    assert done[0]["finishedAt"] <= done[1]["startedAt"]
    failed = run("sleep 100", init=["exit 5", "exit 0"], spec={"restartPolicy": "Never"})
    assert phase(failed, "Failed", "Running") == "Failed"
    assert first(failed)["state"]["waiting"]["reason"] == "PodInitializing"


def test_a_liveness_probe_restarts(run):
    probe = {"exec": {"command": ["sh", "-c", "echo sick; exit 1"]}}
    name = run("sleep 100", livenessProbe={**probe, "periodSeconds": 1, "failureThreshold": 2})
    until(lambda: first(name).get("restartCount"))
    told = events(name)
    assert told["Unhealthy"] == "Liveness probe failed: sick"
    assert told["Killing"] == "Container c0 failed liveness probe, will be restarted"


def test_a_readiness_probe_decides_who_gets_requests(run):
    probe = {"httpGet": {"path": "/none", "port": "web"}, "periodSeconds": 1}
    name = run(None, readinessProbe=probe, ports=[{"containerPort": 8080, "name": "web"}])
    until(lambda: "Unhealthy" in events(name) and "404" in events(name)["Unhealthy"])
    assert status(name)["phase"] == "Running" and not ready(name)
    said = {one["type"]: one.get("message") for one in status(name)["conditions"]}
    assert said["Ready"] == "containers with unready status: [c0]"


def test_a_startup_probe_holds_the_others_back(run):
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 100}
    name = run("sleep 100", startupProbe=never, livenessProbe={**never, "failureThreshold": 1})
    until(lambda: "Unhealthy" in events(name))
    assert events(name)["Unhealthy"].startswith("Startup probe failed")
    assert first(name)["started"] is False and first(name)["restartCount"] == 0


def test_an_image_that_is_not_there(lab, run):  # noqa: F811
    name = run(None, image="127.0.0.1:1/nothing:1")
    waiting(name, "ImagePullBackOff")
    told = events(name)
    reason = "nothing:1 cannot be pulled" if lab.rung == "process" else "connection refused"
    assert {"Failed", "BackOff"} <= told.keys()
    every = read("events", "--field-selector", f"involvedObject.name={name}")["items"]
    assert any(reason in one["message"] for one in every)


def test_an_image_that_must_not_be_pulled(run, containers_only):
    name = run(None, image="nothing:1", imagePullPolicy="Never")
    assert "not present with pull policy of Never" in waiting(name, "ErrImageNeverPull")


def test_a_command_that_is_not_there(run):
    name = run(None, command=["no-such-command"])
    until(lambda: first(name)["lastState"].get("terminated"))
    last = first(name)["lastState"]["terminated"]
    assert last["reason"] == "ContainerCannotRun"
    assert "no-such-command" in last["message"]
    assert "Error: failed to start container" in events(name)["Failed"]


def test_limits_are_kept(lab, run, containers_only):  # noqa: F811
    name = run(
        "python3 -c 'bytearray(10**8)'",
        spec={"restartPolicy": "Never"},
        resources={"limits": {"memory": "32Mi", "cpu": "500m"}, "requests": {"cpu": "100m"}},
    )
    assert phase(name, "Failed", "Succeeded") == "Failed"
    ended = first(name)["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    own = first(name)["containerID"].removeprefix("docker://")
    known = docker.from_env().api.inspect_container(own)
    assert known["Config"]["Healthcheck"] == {"Test": ["NONE"]}  # a pod has probes
    settings = known["HostConfig"]
    assert (settings["NanoCpus"], settings["CpuShares"]) == (500_000_000, 102)
    assert settings["Memory"] == settings["MemorySwap"] == 32 << 20


def test_a_security_context_is_kept(run, containers_only):
    name = run(
        "test $(id -u):$(id -g) = 1000:2000 && ! touch /tmp/x && grep 'Eff.*00$' /proc/self/status",
        spec={"restartPolicy": "Never"},
        securityContext={
            "runAsUser": 1000,
            "runAsGroup": 2000,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    )
    assert phase(name, "Succeeded", "Failed") == "Succeeded"


def test_a_deadline_ends_a_pod(run):
    name = run("sleep 100", spec={"activeDeadlineSeconds": 2})
    assert phase(name, "Failed") == "Failed"
    until(lambda: "running" not in first(name)["state"])
    assert status(name)["reason"] == "DeadlineExceeded"


def test_a_pod_that_is_deleted_may_end_in_peace(run):
    name = run(
        "trap 'exit 7' TERM; while :; do sleep 0.1; done",
        metadata={"finalizers": ["test/keep"]},
        spec={"terminationGracePeriodSeconds": 30},
        lifecycle={"preStop": {"exec": {"command": ["false"]}}},
    )
    until(lambda: ready(name))
    kubectl("delete", "pod", name, "--wait=false")
    until(lambda: "terminated" in first(name)["state"])
    assert first(name)["state"]["terminated"]["exitCode"] == 7
    assert not ready(name)
    until(lambda: {"Killing", "FailedPreStopHook"} <= events(name).keys())
    kubectl("patch", "pod", name, "-p", '{"metadata":{"finalizers":null}}')
    until(lambda: kubectl("get", "pod", name, check=False).returncode)


def test_a_pod_that_is_too_big_is_refused_by_the_node(run):
    name = run("true", spec={"nodeName": "node-1"}, resources={"requests": {"cpu": "1000"}})
    assert phase(name, "Failed") == "Failed"
    assert status(name)["reason"] == "OutOfcpu"


def agent(lab):  # noqa: F811
    """The process of the node's agent."""
    words = ["helpers.cluster.agent", str(lab.folder)]
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if line[2:4] == words and "python" in line[0]:
            return process
    return None


def test_pods_outlive_the_agent(lab, run):  # noqa: F811
    name = run(None, readinessProbe=PORT)
    until(lambda: ready(name))
    before = first(name)
    killed = agent(lab)
    killed.kill()
    until(lambda: agent(lab) and agent(lab).pid != killed.pid)
    other = run(None, readinessProbe=PORT)
    until(lambda: ready(other))
    if lab.rung == "process":
        until(lambda: ready(name) and first(name)["restartCount"] == 1)
    else:
        until(lambda: ready(name))  # not so while nothing is heard of its node
        assert first(name)["containerID"] == before["containerID"]
        assert first(name)["restartCount"] == 0
    assert "Directory listing" in page(f"http://{address(lab, name)}:8080")


def test_what_was_deleted_while_the_agent_was_away_is_removed(lab, run):  # noqa: F811
    name = run(None, readinessProbe=PORT)
    until(lambda: ready(name))
    where = address(lab, name)
    process = agent(lab)
    process.send_signal(signal.SIGSTOP)
    kubectl("delete", "pod", name, "--force", "--grace-period=0")
    assert socket.create_connection((where, 8080), timeout=5).close() is None
    process.kill()

    def closed():
        try:
            socket.create_connection((where, 8080), timeout=1).close()
        except OSError:
            return True
        return False

    until(closed)


def test_an_agent_is_small(lab):  # noqa: F811
    assert agent(lab).memory_info().rss < 60 * 2**20
