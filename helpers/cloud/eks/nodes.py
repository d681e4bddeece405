"""The nodes of an EKS node group: as many as are wanted, each a process of its own.

A node has the name, zone, address and size that an instance of its type would have, so that the
scheduler decides as on AWS. But the size is a promise, since all nodes share this machine, and
there is no instance behind it: ``describe-instances`` does not list it.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from dataclasses import dataclass

from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES

from helpers.cloud.eks import errors
from helpers.cloud.environment import ACCOUNT
from helpers.cluster import ClusterError
from helpers.cluster.api import Api, ApiError

OWN = "eks.amazonaws.com"
PATIENCE_SECONDS = 60  # for which a disruption budget is respected
READY_SECONDS = 180  # that new nodes get to be Ready
TAINT = ("key", "value", "effect")


@dataclass(frozen=True)
class Node:
    """A node of a group, with the instance and the address that it would have."""

    name: str
    instance: str
    address: str
    subnet: str


class Group:
    """One node group.

    Attributes:
        facts: what describe-nodegroup answers.
        nodes: its nodes, oldest first.
    """

    def __init__(self, cluster, facts: dict) -> None:
        """Keep the record; ``settle`` starts the nodes."""
        self.cluster, self.facts = cluster, facts
        self.nodes: list[Node] = []
        self._lock = threading.Lock()

    def settle(self, update: dict) -> None:
        """Add or remove nodes until there are as many as wanted, and wait until all are Ready.

        Args:
            update: the update that this is a part of; it and the group tell how it ends.
        """
        with self._lock:
            try:
                while len(self.nodes) > self.facts["scalingConfig"]["desiredSize"]:
                    self._remove(self.nodes[-1])
                while len(self.nodes) < self.facts["scalingConfig"]["desiredSize"]:
                    self._add()
                deadline = time.monotonic() + READY_SECONDS
                while self.unready() and time.monotonic() < deadline:
                    time.sleep(0.2)
                if late := self.unready():
                    raise ClusterError(f"Instances failed to join the kubernetes cluster: {late}")
                self.facts["status"], update["status"] = "ACTIVE", "Successful"
            except Exception as problem:
                created = self.facts["status"] == "CREATING"
                status = "CREATE_FAILED" if created else "DEGRADED"
                self._note(status, problem)
                error = {"errorCode": "NodeCreationFailure", "errorMessage": str(problem)}
                update |= {"status": "Failed", "errors": [error]}

    def empty(self) -> bool:
        """Drain and remove all nodes, and say whether that was possible."""
        with self._lock:
            try:
                while self.nodes:
                    self._remove(self.nodes[-1])
            except Exception as problem:
                self._note("DELETE_FAILED", problem)
            return not self.nodes

    def relabel(self, labels: dict[str, str | None], taints: list[dict]) -> None:
        """Change labels of all nodes, and replace the group's taints.

        Args:
            labels: the labels that change; None takes one away.
            taints: all taints that the group had before.
        """
        before, new = _written(taints), _written(self.facts["taints"])
        for node in self.nodes:
            path = f"/api/v1/nodes/{node.name}"
            there = self.cluster.api.get(path)["spec"].get("taints", [])
            kept = [one for one in there if {n: one.get(n, "") for n in TAINT} not in before]
            body = {"metadata": {"labels": labels}, "spec": {"taints": kept + new}}
            self.cluster.api.patch(path, body)

    def unready(self) -> list[str]:
        """Return the names of its nodes that are not Ready."""
        label = f"{OWN}/nodegroup={self.facts['nodegroupName']}"
        ready = {
            one["metadata"]["name"]
            for one in self.cluster.api.get("/api/v1/nodes", labelSelector=label)["items"]
            for condition in one["status"].get("conditions", [])
            if (condition["type"], condition["status"]) == ("Ready", "True")
        }
        return [node.name for node in self.nodes if node.name not in ready]

    def _note(self, status: str, problem: Exception) -> None:
        things = [node.instance for node in self.nodes]
        errors.note(self.facts, status, "NodeCreationFailure", problem, things)

    def _subnet(self, name: str):
        return ec2_backends[ACCOUNT][self.cluster.region].get_subnet(name)

    def _add(self) -> None:
        """Start a node in the subnet that has the fewest."""
        used, region = [node.subnet for node in self.nodes], self.cluster.region
        subnet = self._subnet(min(self.facts["subnets"], key=used.count))
        address, zone = subnet.get_available_subnet_ip(self), subnet.availability_zone
        domain = "ec2" if region == "us-east-1" else f"{region}.compute"
        name = f"ip-{address.replace('.', '-')}.{domain}.internal"
        node = Node(name, f"i-{random.getrandbits(68):017x}", address, subnet.id)
        kind = self.facts["instanceTypes"][0]
        labels = {
            f"{OWN}/nodegroup": self.facts["nodegroupName"],
            f"{OWN}/capacityType": self.facts["capacityType"],
            "node.kubernetes.io/instance-type": kind,
            "topology.kubernetes.io/region": region,
            "topology.kubernetes.io/zone": zone,
        }
        self.nodes.append(node)
        self.cluster.local.add_node(
            name,
            cpus=INSTANCE_TYPES[kind]["VCpuInfo"]["DefaultVCpus"],
            memory_mb=INSTANCE_TYPES[kind]["MemoryInfo"]["SizeInMiB"],
            labels=labels | self.facts["labels"],
            taints=_written(self.facts["taints"]),
            provider=f"aws:///{zone}/{node.instance}",
            logins=f"{self.cluster.door}/{self.facts['nodegroupName']}/{node.instance}",
        )

    def _remove(self, node: Node) -> None:
        with contextlib.suppress(ApiError):  # it has never come, or is gone already
            _drain(self.cluster.api, node.name)
        self.cluster.local.remove_node(node.name)
        self._subnet(node.subnet).del_subnet_ip(node.address)
        self.nodes.remove(node)


def _written(taints: list[dict]) -> list[dict]:
    """Return taints of EKS as Kubernetes writes them (``NO_SCHEDULE`` is ``NoSchedule``)."""
    return [
        {
            "key": one["key"],
            "value": one.get("value", ""),
            "effect": one["effect"].title().replace("_", ""),
        }
        for one in taints
    ]


def _drain(api: Api, node: str) -> None:
    """Evict the pods of a node, but for those of DaemonSets, and wait until they are gone.

    A pod that a disruption budget protects is deleted all the same after a while.

    Raises:
        ApiError: there is no such node.
    """
    api.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": True}})
    version = api.get("/apis/policy")["preferredVersion"]["groupVersion"]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while pods := _pods(api, node):
        for pod in pods:
            meta = {name: pod["metadata"][name] for name in ("name", "namespace")}
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
            with contextlib.suppress(ApiError):  # a budget forbids it just now, or it is gone
                if time.monotonic() > deadline:
                    api.delete(path, {"gracePeriodSeconds": 0})
                elif "deletionTimestamp" not in pod["metadata"]:
                    eviction = {"apiVersion": version, "kind": "Eviction", "metadata": meta}
                    api.create(f"{path}/eviction", eviction)
        time.sleep(0.2)


def _pods(api: Api, node: str) -> list[dict]:
    def stays(pod: dict) -> bool:
        owners = [owner["kind"] for owner in pod["metadata"].get("ownerReferences", [])]
        return "DaemonSet" in owners or pod["status"].get("phase") in ("Succeeded", "Failed")

    listed = api.get("/api/v1/pods", fieldSelector=f"spec.nodeName={node}")["items"]
    return [pod for pod in listed if not stays(pod)]
