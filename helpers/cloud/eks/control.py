"""An EKS cluster that lives: a control plane of ``helpers.cluster`` and what is known about it."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import time
import uuid

from moto.core.utils import utcnow
from moto.ec2.models import ec2_backends

from helpers import cluster
from helpers.cloud import environment
from helpers.cloud.eks import entries, errors, tokens
from helpers.cloud.environment import ACCOUNT
from helpers.cluster.api import write_kubeconfig

ROLES_SECONDS = 60  # that the controllers get to put roles together


class Cluster:
    """One cluster.

    Attributes:
        facts: what describe-cluster answers.
        groups: its node groups, by name.
        entries: its access entries, by the ARN of their principal.
        updates: by id, of which node group (or None) each is, and what describe-update answers.
        secret: what its API server says at the door (``tokens.door``).
    """

    def __init__(self, facts: dict, admin: str) -> None:
        """Keep the record; ``admin`` is the ARN of the one who may do everything, or empty."""
        self.facts, self._admin = facts, admin
        self.name, self.region = facts["name"], facts["arn"].split(":")[3]
        self.groups: dict = {}
        self.entries: dict[str, entries.Entry] = {}
        self.updates: dict[str, tuple[str | None, dict]] = {}
        self.secret = secrets.token_urlsafe(30)
        self.local = self.api = None
        self._webhook = environment.folder() / f"{self.name}.webhook"

    @property
    def mode(self) -> str:
        """How it knows its users: ``CONFIG_MAP``, ``API_AND_CONFIG_MAP`` or ``API``."""
        return self.facts["accessConfig"]["authenticationMode"]

    @property
    def door(self) -> str:
        """Where its API server and its nodes ask (a URL)."""
        place = f"{tokens.DOOR}{self.region}/{self.name}/{self.secret}"
        return os.environ["AWS_ENDPOINT_URL"] + place

    def start(self) -> None:
        """Start the control plane; once it answers, the cluster is ACTIVE."""
        try:
            # It leads the API server to the door, without a user: Go sends no token over HTTP.
            write_kubeconfig(self._webhook, "door", {"server": self.door}, {})
            self.local = cluster.create(f"eks-{self.name}", webhook=str(self._webhook))
            self.api = self.local.api
            self._wait()
            if self._admin:
                entry = entries.make(self, self._admin)
                admin = f"{entries.POLICY}AmazonEKSClusterAdminPolicy"
                entries.associate(self, entry, admin, {"type": "cluster"})
            self.facts |= self._described() | {"status": "ACTIVE"}
        except Exception as problem:
            errors.note(self.facts, "FAILED", "InternalFailure", problem, [self.name])
            if self.local:
                self.local.delete()

    def stop(self) -> None:
        """Stop all its processes and remove its files."""
        if self.local:
            self.local.delete()
        self._webhook.unlink(missing_ok=True)
        group = self.facts["resourcesVpcConfig"]["clusterSecurityGroupId"]
        with contextlib.suppress(Exception):  # it may be gone already, with its VPC
            ec2_backends[ACCOUNT][self.region].delete_security_group(group_id=group)

    def update(self, kind: str, group: str | None = None, **params) -> dict:
        """Note an update, of the cluster or a node group, and return it."""
        one = {
            "id": str(uuid.uuid4()),
            "status": "InProgress",
            "type": kind,
            "params": [{"type": name, "value": str(value)} for name, value in params.items()],
            "createdAt": utcnow(),
            "errors": [],
        }
        self.updates[one["id"]] = (group, one)
        return one

    def node_named(self, instance: str) -> str:
        """Return the name of the node with an instance id; empty if there is none."""
        nodes = [node for group in self.groups.values() for node in group.nodes]
        return next((node.name for node in nodes if node.instance == instance), "")

    def _wait(self) -> None:
        """Wait until the roles that access policies mean have been put together."""
        deadline = time.monotonic() + ROLES_SECONDS
        while not self.api.get(f"{entries.RBAC}/clusterroles/view").get("rules"):
            if time.monotonic() > deadline:
                raise cluster.ClusterError(f"There are no roles after {ROLES_SECONDS} s.")
            time.sleep(0.1)

    def _described(self) -> dict:
        release = self.api.get("/version")["gitVersion"]  # v1.20.2
        octet = self.local.facts["octet"]
        authority = base64.b64encode((self.local.folder / "ca.pem").read_bytes()).decode()
        issuer = self.api.get("/.well-known/openid-configuration")["issuer"]
        return {
            "version": ".".join(release[1:].split(".")[:2]),
            "endpoint": self.api.server,
            "certificateAuthority": {"data": authority},
            "identity": {"oidc": {"issuer": issuer}},
            "kubernetesNetworkConfig": {
                "ipFamily": "ipv4",
                "serviceIpv4Cidr": f"10.{octet}.128.0/17",
            },
        }
