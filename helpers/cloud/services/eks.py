"""EKS: clusters are control planes that run, and their API server knows who asks.

``helpers.cloud.eks`` has what they consist of; here are the operations on clusters. Not here:
add-ons, Fargate, Pod Identity, logs in CloudWatch, and other versions than the one there is.
"""

from __future__ import annotations

import re
import threading
from types import SimpleNamespace

from moto.core.base_backend import BaseBackend
from moto.core.utils import utcnow
from moto.eks import urls
from moto.eks.models import eks_backends

from helpers import machine
from helpers.cloud import calls, operations
from helpers.cloud.calls import Refusal
from helpers.cloud.eks import entries, errors, limits, network, nodegroups, tokens
from helpers.cloud.eks.control import Cluster
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import sts
from helpers.cluster import programs

MEMORY_MB = 700  # that a control plane needs
MODES = ["CONFIG_MAP", "API_AND_CONFIG_MAP", "API"]  # one changes to the next, never back
DEFAULT_MODE = "CONFIG_MAP"
NAME = "^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$"
LOGS = ["api", "audit", "authenticator", "controllerManager", "scheduler"]


class Response(operations.Response):
    """A cluster belongs to a role and not to its session; what is not here is listed as nothing."""

    service, missing = "eks", limits.MISSING

    def answer(self, operation: str, asked: dict) -> dict:
        """Answer a call that has an effect, or none."""
        if operation in limits.EMPTY:
            self.backend.find(asked["clusterName"])
            return {limits.EMPTY[operation]: []}
        limits.check(operation, asked)
        return super().answer(operation, asked)

    def caller(self) -> str:
        """Return the ARN of the user or role that calls."""
        return sts.caller(self.get_access_key())[2]["aws:principalarn"]


class Backend(entries.Operations, nodegroups.Operations, BaseBackend):
    """The clusters of a region. A method is an operation: it takes and returns what AWS does."""

    _url_module = SimpleNamespace(
        url_bases=urls.url_bases, url_paths={"{0}/.*$": Response.dispatch}
    )

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.clusters: dict[str, Cluster] = {}

    def create_cluster(self, asked: dict) -> dict:
        """Record a cluster and start it."""
        name, config = asked["name"], asked.get("accessConfig") or {}
        if not re.match(NAME, name):
            raise errors.invalid(f"The cluster name {name} does not match {NAME}")
        config = {
            "authenticationMode": DEFAULT_MODE,
            "bootstrapClusterCreatorAdminPermissions": True,
        } | config
        admin = asked["caller"] if config["bootstrapClusterCreatorAdminPermissions"] else ""
        if config["authenticationMode"] == "CONFIG_MAP" and not admin:
            raise errors.invalid(
                "bootstrapClusterCreatorAdminPermissions must be true if cluster authentication "
                "mode is set to CONFIG_MAP"
            )
        version = {"version": asked["version"]} if asked.get("version") else {}
        if version:  # else its API is going to say
            _check_version(asked["version"])
        sts.assume(asked["roleArn"], "eks")
        if (free := machine.facts()["memory_free_mb"]) < MEMORY_MB:
            text = f"A cluster needs {MEMORY_MB} MB of memory; {free} MB are free. Stop something."
            raise Refusal("ResourceLimitExceededException", text)
        place = network.config(self.region_name, asked["resourcesVpcConfig"])
        facts = {
            "name": name,
            "arn": f"arn:aws:eks:{self.region_name}:{ACCOUNT}:cluster/{name}",
            "createdAt": utcnow(),
            "roleArn": asked["roleArn"],
            "resourcesVpcConfig": place,
            "logging": {"clusterLogging": [{"types": LOGS, "enabled": False}]},
            "status": "CREATING",
            "tags": asked.get("tags") or {},
            "health": {"issues": []},
            "accessConfig": config,
            "upgradePolicy": asked.get("upgradePolicy") or {"supportType": "EXTENDED"},
        } | version
        made = Cluster(facts, admin)
        if self.clusters.setdefault(name, made) is not made:
            raise errors.in_use(f"Cluster already exists with name: {name}")
        group = network.security_group(self.region_name, name, place["vpcId"])
        place["clusterSecurityGroupId"] = group
        threading.Thread(target=made.start, daemon=True).start()
        return {"cluster": facts}

    def describe_cluster(self, asked: dict) -> dict:
        """Return a cluster."""
        return {"cluster": self.find(asked["name"]).facts}

    def list_clusters(self, _: dict) -> dict:
        """Return the names of all clusters."""
        return {"clusters": sorted(self.clusters)}

    def delete_cluster(self, asked: dict) -> dict:
        """Stop a cluster that has no node groups."""
        found = self.find(asked["name"])
        if found.groups:
            raise errors.in_use("Cluster has nodegroups attached")
        if found.facts["status"] not in ("ACTIVE", "FAILED"):
            text = f"Cannot delete because cluster {found.name} currently has an update in progress"
            raise errors.in_use(text)
        found.facts["status"] = "DELETING"

        def delete() -> None:
            try:
                found.stop()
                del self.clusters[found.name]
            except Exception as problem:
                errors.note(found.facts, "FAILED", "InternalFailure", problem, [found.name])

        threading.Thread(target=delete, daemon=True).start()
        return {"cluster": found.facts}

    def update_cluster_config(self, asked: dict) -> dict:
        """Change how a cluster knows its users."""
        found = self.active(asked["name"])
        new, now = (asked.get("accessConfig") or {}).get("authenticationMode"), found.mode
        if not new or new == now:
            raise errors.invalid("No changes needed for the cluster's configuration")
        if MODES.index(new) != MODES.index(now) + 1:
            raise errors.invalid(f"Unsupported authentication mode update from {now} to {new}")
        found.facts["accessConfig"]["authenticationMode"] = new
        for group in found.groups.values():
            tokens.admit_nodes(found, group.facts["nodeRole"])
        update = found.update("AccessConfigUpdate", AuthenticationMode=new)
        update["status"] = "Successful"
        return {"update": update}

    def update_cluster_version(self, asked: dict) -> dict:
        """Refuse: there is no other version."""
        version = self.active(asked["name"]).facts["version"]
        _check_version(asked["version"])
        text = f"Cluster is already at the desired configuration with version: {version}"
        raise errors.invalid(text)

    def describe_update(self, asked: dict) -> dict:
        """Return an update of a cluster or a node group."""
        updates = self.find(asked["name"]).updates
        if asked["updateId"] not in updates:
            raise errors.missing(f"No update found for ID: {asked['updateId']}")
        return {"update": updates[asked["updateId"]][1]}

    def list_updates(self, asked: dict) -> dict:
        """Return the ids of the updates of a cluster, or of one of its node groups."""
        updates, group = self.find(asked["name"]).updates, asked.get("nodegroupName")
        return {"updateIds": [one for one, (of, _) in updates.items() if of == group]}

    def tag_resource(self, asked: dict) -> dict:
        """Add tags to a cluster, node group or access entry."""
        self._tags(asked["resourceArn"]).update(asked["tags"])
        return {}

    def untag_resource(self, asked: dict) -> dict:
        """Take tags away."""
        for key in asked["tagKeys"]:
            self._tags(asked["resourceArn"]).pop(key, None)
        return {}

    def list_tags_for_resource(self, asked: dict) -> dict:
        """Return the tags of a cluster, node group or access entry."""
        return {"tags": self._tags(asked["resourceArn"])}

    def find(self, name: str) -> Cluster:
        """Return a cluster, if there is one of this name."""
        if name not in self.clusters:
            raise errors.missing(f"No cluster found for name: {name}.")
        return self.clusters[name]

    def active(self, name: str) -> Cluster:
        """Return a cluster, if it is up."""
        found = self.find(name)
        if found.facts["status"] != "ACTIVE":
            raise errors.impossible(f"Cluster '{name}' is not in ACTIVE status")
        return found

    def _tags(self, arn: str) -> dict[str, str]:
        for one in self.clusters.values():
            for part in (one, *one.groups.values(), *one.entries.values()):
                if arn in part.facts.values():
                    return part.facts["tags"]
        raise Refusal("NotFoundException", "Resource was not found", 404)


def find(region: str, name: str) -> Cluster | None:
    """Return a cluster of any region, or None if there is none of this name."""
    backend = dict(eks_backends[ACCOUNT]).get(region)
    return backend.clusters.get(name) if backend else None


def _check_version(asked: str) -> None:
    """Refuse any version but the one that there is."""
    try:
        there = ".".join(map(str, programs.find().version))
    except programs.ProgramError as problem:
        raise Refusal("ServerException", str(problem), 500) from None
    if asked != there:
        text = f"unsupported Kubernetes version {asked}: the local cloud has {there}"
        raise errors.invalid(text)


eks_backends.backend = Backend
calls.DOORS[tokens.DOOR] = tokens.door
