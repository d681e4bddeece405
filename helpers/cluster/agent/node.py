"""A node of the cluster: registered with the API, kept alive there, and its pods looked after."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

import urllib3

from helpers.cluster.agent.environment import quantity
from helpers.cluster.agent.events import Events, now
from helpers.cluster.agent.pod import Pod
from helpers.cluster.agent.runtime import Runtime, Settings
from helpers.cluster.api import Api, ApiError

HEARTBEAT = 3  # seconds; a node is given up after 12 (control.py)
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
UNREACHABLE = (ApiError, urllib3.exceptions.HTTPError, OSError)
PRESSURES = {
    "MemoryPressure": "sufficient memory",
    "DiskPressure": "no disk pressure",
    "PIDPressure": "sufficient PID",
}


class Node:
    """One node: what the kubelet is elsewhere."""

    def __init__(self, folder: Path, settings: Settings, runtime: Runtime) -> None:
        """Prepare a node of the cluster in a folder."""
        self.folder, self.settings, self.runtime = folder, settings, runtime
        self.api = Api(folder / "nodes" / settings.name / "kubeconfig")
        self.events = Events(self.api, settings.name)
        self.offered = {
            "cpu": f"{settings.cpus:g}",
            "memory": f"{settings.memory_mb}Mi",
            "pods": str(settings.pods),
        }
        self._workers: dict[str, Pod] = {}
        self._lock = threading.Lock()
        self._ready = {"status": ""}

    def run(self) -> None:
        """Register the node and look after its pods, for ever."""
        node = self._register()
        if self.runtime.remark:
            self.events(node, "NoIsolation", self.runtime.remark, kind="Warning")
        for work in (self._heartbeat, self._listen):
            threading.Thread(target=work, daemon=True).start()
        mine = f"spec.nodeName={self.settings.name}"
        for kind, item in self.api.watch("/api/v1/pods", fieldSelector=mine):
            try:
                if kind == "LISTED":
                    self._compare(item)
                else:
                    self._take(item, gone=kind == "DELETED")
            except Exception:  # one pod must not take the others with it
                traceback.print_exc()

    def find(self, namespace: str, name: str) -> dict | None:
        """Return a pod of this node, with the status that was last reported."""
        for worker in list(self._workers.values()):
            meta = worker.pod["metadata"]
            if (meta["namespace"], meta["name"]) == (namespace, name):
                return {**worker.pod, "status": worker.pod.get("status", {}) | worker.reported}
        return None

    def forget(self, uid: str) -> None:
        """Take note that a pod is gone."""
        with self._lock:
            self._workers.pop(uid, None)

    def _compare(self, pods: list[dict]) -> None:
        """Begin with what is there; what the API does not know any more is removed."""
        for pod in sorted(pods, key=lambda pod: "podIP" not in pod.get("status", {})):
            self._take(pod)
        known = {pod["metadata"]["uid"] for pod in pods}
        for uid, worker in list(self._workers.items()):
            if uid not in known:
                worker.update(worker.pod, gone=True)
        for uid in self.runtime.pods() - known - set(self._workers):
            self.runtime.close(uid)

    def _take(self, pod: dict, *, gone: bool = False) -> None:
        uid = pod["metadata"]["uid"]
        with self._lock:
            worker = self._workers.get(uid)
            if worker:
                worker.update(pod, gone=gone)
            if worker or gone:
                return
            worker = Pod(self, pod)
            if "startTime" not in pod.get("status", {}) and (problem := self._too_much(pod)):
                worker.fail(*problem)
                self.events(worker.pod, *problem, kind="Warning")
            self._workers[uid] = worker
        worker.start()

    def _too_much(self, pod: dict) -> tuple[str, str] | None:
        """Return why a pod does not fit on the node: the scheduler may have been passed over."""
        active = [one.pod for one in self._workers.values() if not one.finished]
        if len(active) >= self.settings.pods:
            return "OutOfpods", f"Node has room for {self.settings.pods} pods"
        for name in ("cpu", "memory"):
            asked, used = _requested(pod, name), sum(_requested(one, name) for one in active)
            if asked + used > (room := quantity(self.offered[name])):
                text = f"Node didn't have enough resource: {name}, requested: {asked}, "
                return f"OutOf{name}", f"{text}used: {used}, capacity: {room}"
        return None

    def _listen(self) -> None:
        for uid in self.runtime.changes():
            for one, worker in list(self._workers.items()):
                if uid in ("", one):
                    worker.wake.set()

    def _register(self) -> dict:
        settings = self.settings
        labels = {"kubernetes.io/hostname": settings.name, "kubernetes.io/os": "linux"}
        labels |= {"kubernetes.io/arch": _architecture(), **settings.labels}
        node = {"kind": "Node", "metadata": {"name": settings.name, "labels": labels}}
        node["spec"] = {"taints": settings.taints}
        if settings.provider:
            node["spec"]["providerID"] = settings.provider
        while True:
            try:
                try:
                    found = self.api.create("/api/v1/nodes", node)
                except ApiError as problem:
                    if problem.status != 409:
                        raise
                    path = f"/api/v1/nodes/{settings.name}"
                    found = self.api.patch(path, {"metadata": {"labels": labels}})
                self._version = self.api.get("/version")["gitVersion"].partition("+")[0]
                self._beat()
                return found
            except UNREACHABLE as problem:
                print(f"The API does not take this node yet: {problem}", flush=True)
                time.sleep(0.5)

    def _heartbeat(self) -> None:
        while True:
            time.sleep(HEARTBEAT)
            try:
                self._beat()
            except UNREACHABLE as problem:
                print(f"No heartbeat: {problem}", flush=True)

    def _beat(self) -> None:
        """Tell the API that the node is there, and how it is."""
        settings = self.settings
        about = dict.fromkeys(("kubeletVersion", "kubeProxyVersion"), f"{self._version}+lab")
        about["osImage"] = "Containers" if self.runtime.kind == "docker" else "Processes"
        about["containerRuntimeVersion"] = f"{self.runtime.kind}://{self.runtime.version}"
        about |= {"operatingSystem": "linux", "architecture": _architecture()}
        about |= {"kernelVersion": os.uname().release, "bootID": "", "machineID": settings.name}
        about["systemUUID"] = settings.name
        status = {"capacity": self.offered, "allocatable": self.offered, "nodeInfo": about}
        status["addresses"] = [
            {"type": "InternalIP", "address": settings.address},
            {"type": "Hostname", "address": settings.name},
        ]
        status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": 10250}}
        status["conditions"] = self._conditions()
        path = f"/api/v1/nodes/{settings.name}/status"
        self.api.patch(path, {"status": status}, "strategic-merge")
        instant = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": settings.name, "renewTime": instant, "leaseDurationSeconds": 40}
        lease = {"metadata": {"name": settings.name}, "spec": spec}
        try:
            self.api.patch(f"{LEASES}/{settings.name}", lease)
        except ApiError as problem:
            if problem.status != 404:
                raise
            self.api.create(LEASES, lease)

    def _conditions(self) -> list[dict]:
        try:
            self.runtime.pods()
            ready = {"status": "True", "reason": "KubeletReady", "message": "the node is ready"}
        except Exception as problem:  # whatever it is, the node cannot run pods
            text = f"container runtime is down: {problem}"
            ready = {"status": "False", "reason": "KubeletNotReady", "message": text[:300]}
        if ready["status"] != self._ready["status"]:
            ready["lastTransitionTime"] = now()
        self._ready = {**self._ready, **ready}
        found = [{"type": "Ready", **self._ready}]
        for kind, text in PRESSURES.items():
            reason = "KubeletHas" + "".join(word.capitalize() for word in text.split())
            one = {"type": kind, "status": "False", "reason": reason}
            found.append(one | {"message": f"node has {text}"})
        return [one | {"lastHeartbeatTime": now()} for one in found]


def settings(folder: Path, name: str) -> Settings:
    """Read what a node is told."""
    return Settings(**json.loads((folder / "nodes" / name / "node.json").read_text()))


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _requested(pod: dict, name: str):
    containers = pod["spec"]["containers"]
    asked = (one.get("resources", {}).get("requests", {}).get(name, 0) for one in containers)
    return sum(quantity(one) for one in asked)
