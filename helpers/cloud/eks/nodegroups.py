"""The operations on node groups, for the backend of EKS."""

from __future__ import annotations

import copy
import re
import threading
import uuid

from moto.core.utils import utcnow

from helpers.cloud import policies
from helpers.cloud.calls import Refusal
from helpers.cloud.eks import errors, network, tokens
from helpers.cloud.eks.nodes import Group

RESERVED = re.compile(r"([a-z.]+\.)?(kubernetes\.io|k8s\.io|eks\.amazonaws\.com)/")
DEFAULTS = {
    "scalingConfig": {"minSize": 1, "maxSize": 2, "desiredSize": 2},
    "amiType": "AL2023_x86_64_STANDARD",
    "capacityType": "ON_DEMAND",
    "diskSize": 20,
    "instanceTypes": ["t3.medium"],
    "labels": {},
    "taints": [],
    "tags": {},
    "updateConfig": {"maxUnavailable": 1},
}


class Operations:
    """Part of the backend (``services/eks.py``)."""

    def create_nodegroup(self, asked: dict) -> dict:
        """Record a node group and start its nodes."""
        cluster, name = self.active(asked["clusterName"]), asked["nodegroupName"]
        if name in cluster.groups:
            text = f"NodeGroup already exists with name {name} and cluster name {cluster.name}"
            raise errors.in_use(text)
        given = copy.deepcopy(DEFAULTS) | {n: asked[n] for n in DEFAULTS if asked.get(n)}
        given["scalingConfig"] = DEFAULTS["scalingConfig"] | given["scalingConfig"]
        _check_role(asked["nodeRole"])
        _check(given)
        network.subnets(self.region_name, asked["subnets"])
        if (asked.get("version") or cluster.facts["version"]) != cluster.facts["version"]:
            raise errors.invalid("Requested Nodegroup version is not the cluster's")
        there = cluster.facts["arn"].replace(":cluster/", ":nodegroup/")
        facts = given | {
            "nodegroupName": name,
            "nodegroupArn": f"{there}/{name}/{uuid.uuid4()}",
            "clusterName": cluster.name,
            "version": cluster.facts["version"],
            "createdAt": utcnow(),
            "modifiedAt": utcnow(),
            "status": "CREATING",
            "subnets": asked["subnets"],
            "nodeRole": asked["nodeRole"],
            "health": {"issues": []},
        }
        tokens.admit_nodes(cluster, asked["nodeRole"])
        made = cluster.groups[name] = Group(cluster, facts)
        threading.Thread(target=made.settle, args=({},), daemon=True).start()
        return {"nodegroup": facts}

    def describe_nodegroup(self, asked: dict) -> dict:
        """Return a node group, with what is wrong with it."""
        found = self._group(asked)
        if found.facts["status"] in ("ACTIVE", "DEGRADED"):
            names = found.unready()
            bad = [node.instance for node in found.nodes if node.name in names]
            text = "Unhealthy nodes in the kubernetes cluster"
            issue = {"code": "NodeCreationFailure", "message": text, "resourceIds": bad}
            found.facts["status"] = "DEGRADED" if bad else "ACTIVE"
            found.facts["health"] = {"issues": [issue] if bad else []}
        return {"nodegroup": found.facts}

    def list_nodegroups(self, asked: dict) -> dict:
        """Return the names of a cluster's node groups."""
        return {"nodegroups": sorted(self.find(asked["clusterName"]).groups)}

    def update_nodegroup_config(self, asked: dict) -> dict:
        """Change size, labels and taints of a node group, and of the nodes that it has."""
        found = self._settled(asked)
        new = {n: found.facts[n] for n in ("scalingConfig", "labels", "taints", "updateConfig")}
        labels, taints = asked.get("labels") or {}, asked.get("taints") or {}
        added, gone = labels.get("addOrUpdateLabels", {}), labels.get("removeLabels", [])
        new["labels"] = {n: v for n, v in new["labels"].items() if n not in gone} | added
        changed = taints.get("addOrUpdateTaints", []) + taints.get("removeTaints", [])
        names = [(one["key"], one["effect"]) for one in changed]
        kept = [one for one in new["taints"] if (one["key"], one["effect"]) not in names]
        old, new["taints"] = new["taints"], kept + taints.get("addOrUpdateTaints", [])
        new["scalingConfig"] = new["scalingConfig"] | (asked.get("scalingConfig") or {})
        new["updateConfig"] = asked.get("updateConfig") or new["updateConfig"]
        _check(found.facts | new)
        found.facts |= new | {"modifiedAt": utcnow()}
        found.relabel(dict.fromkeys(gone) | added, old)
        found.facts["status"] = "UPDATING"
        sizes = {f"{n[0].upper()}{n[1:]}": v for n, v in (asked.get("scalingConfig") or {}).items()}
        update = found.cluster.update("ConfigUpdate", found.facts["nodegroupName"], **sizes)
        threading.Thread(target=found.settle, args=(update,), daemon=True).start()
        return {"update": update}

    def delete_nodegroup(self, asked: dict) -> dict:
        """Drain and remove a node group."""
        found = self._settled(asked)
        found.facts["status"] = "DELETING"

        def delete() -> None:
            if found.empty():
                del found.cluster.groups[found.facts["nodegroupName"]]

        threading.Thread(target=delete, daemon=True).start()
        return {"nodegroup": found.facts}

    def _group(self, asked: dict) -> Group:
        groups, name = self.find(asked["clusterName"]).groups, asked["nodegroupName"]
        if name not in groups:
            raise errors.missing(f"No node group found for name: {name}.")
        return groups[name]

    def _settled(self, asked: dict) -> Group:
        found = self._group(asked)
        status = found.facts["status"]
        if status in ("CREATING", "UPDATING", "DELETING"):
            name = found.facts["nodegroupName"]
            raise errors.in_use(f"Nodegroup cannot be changed as it is {status}: {name}")
        return found


def _check_role(role: str) -> None:
    """Refuse a role that instances cannot have."""
    from helpers.cloud.services import sts

    trust, who = sts.trust(role), "ec2.amazonaws.com"
    if not trust:
        raise errors.invalid(f"The role with name {role.rsplit('/', 1)[-1]} cannot be found.")
    if policies.verdict(trust, "sts:AssumeRole", role, {}, {who}) != "Allow":
        raise errors.invalid(
            f"Following required service principals [{who}] were not found in the trust "
            f"relationships of nodeRole {role}"
        )


def _check(facts: dict) -> None:
    from helpers.cloud.services import ec2

    size = facts["scalingConfig"]
    least, most, wanted = (size[f"{name}Size"] for name in ("min", "max", "desired"))
    if least > wanted:
        raise errors.invalid(
            f"Minimum capacity {least} can't be greater than desired size {wanted}"
        )
    if wanted > most:
        raise errors.invalid(f"desired capacity {wanted} can't be greater than max size {most}")
    for kind in facts["instanceTypes"]:
        try:
            ec2.check_type(kind)
        except Refusal as problem:
            raise errors.invalid(problem.message) from None
    if "x86_64" not in facts["amiType"] or "WINDOWS" in facts["amiType"]:
        raise NotImplementedError(f"the AMI type {facts['amiType']}: nodes are those of x86_64")
    if reserved := [name for name in facts["labels"] if RESERVED.match(name)]:
        prefixes = "[kubernetes.io/, k8s.io/, eks.amazonaws.com/]"
        text = f"Label cannot contain reserved prefixes {prefixes}: {', '.join(reserved)}"
        raise errors.invalid(text)
