"""Access entries of an EKS cluster: who may do what in it, kept outside it.

On AWS an authorizer of its own knows the access policies. Here they are RBAC bindings of the
cluster, to a group that only the entry's principal is in; ``kubectl get clusterrolebindings``
shows them.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field

from moto.core.utils import utcnow

from helpers.cloud import policies
from helpers.cloud.eks import errors
from helpers.cloud.environment import ACCOUNT
from helpers.cluster.api import ApiError

POLICY = "arn:aws:eks::aws:cluster-access-policy/"
ROLES = {  # access policies, and the roles of Kubernetes that mean the same
    f"{POLICY}AmazonEKSClusterAdminPolicy": "cluster-admin",
    f"{POLICY}AmazonEKSAdminPolicy": "admin",
    f"{POLICY}AmazonEKSEditPolicy": "edit",
    f"{POLICY}AmazonEKSViewPolicy": "view",
}
NODES = ["system:bootstrappers", "system:nodes"]
NODE_NAME = "system:node:{{EC2PrivateDNSName}}"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
LABEL = "eks.amazonaws.com/access-entry"
RESERVED = re.compile(r"(system|eks|aws|amazon|iam):")


@dataclass
class Entry:
    """An access entry.

    Attributes:
        facts: what describe-access-entry answers.
        policies: what list-associated-access-policies answers, by ARN.
    """

    facts: dict
    policies: dict[str, dict] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The end of its ARN."""
        return self.facts["accessEntryArn"].rsplit("/", 1)[1]

    @property
    def groups(self) -> list[str]:
        """The groups of Kubernetes that its principal is in."""
        own = NODES if self.facts["type"] == "EC2_LINUX" else [f"eks:access-entry:{self.id}"]
        return [*self.facts["kubernetesGroups"], *own]


def make(cluster, principal: str, kind: str = "STANDARD", **facts) -> Entry:
    """Make an access entry of a cluster and return it.

    Args:
        cluster: a ``control.Cluster``.
        principal: ARN of a user or role.
        kind: ``STANDARD``, or ``EC2_LINUX`` for nodes.
        facts: what else is given: ``kubernetesGroups``, ``username``, ``tags``.
    """
    what, _, path = principal.split(":", 5)[5].partition("/")
    name = path.rsplit("/", 1)[-1]
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{{{{SessionName}}}}"
    there = cluster.facts["arn"].replace(":cluster/", ":access-entry/")
    facts = {"kubernetesGroups": [], "tags": {}} | facts
    facts |= {
        "clusterName": cluster.name,
        "principalArn": principal,
        "accessEntryArn": f"{there}/{what}/{ACCOUNT}/{name or what}/{uuid.uuid4()}",
        "createdAt": utcnow(),
        "modifiedAt": utcnow(),
        "type": kind,
    }
    default = NODE_NAME if kind == "EC2_LINUX" else session if what == "role" else principal
    facts["username"] = facts.get("username") or default
    cluster.entries[principal] = Entry(facts)
    return cluster.entries[principal]


def associate(cluster, entry: Entry, policy: str, scope: dict) -> dict:
    """Give an entry an access policy, cluster-wide or in namespaces, and return the association."""
    now = utcnow()
    begun = entry.policies.get(policy, {}).get("associatedAt", now)
    unbind(cluster, entry, policy)
    entry.policies[policy] = {
        "policyArn": policy,
        "accessScope": {"namespaces": []} | scope,
        "associatedAt": begun,
        "modifiedAt": now,
    }
    bind(cluster, entry)
    return entry.policies[policy]


def bind(cluster, entry: Entry) -> None:
    """Make the bindings that an entry's policies mean, where they are missing.

    A namespace may be a pattern, and may come later, so this is done whenever somebody comes.
    """
    for arn, one in entry.policies.items():
        places, patterns = [f"{RBAC}/clusterrolebindings"], one["accessScope"]["namespaces"]
        if one["accessScope"]["type"] == "namespace":
            listed = cluster.api.get("/api/v1/namespaces")["items"]
            names = [each["metadata"]["name"] for each in listed]
            chosen = [n for n in names if any(policies.glob(p, n) for p in patterns)]
            places = [f"{RBAC}/namespaces/{name}/rolebindings" for name in chosen]
        for place in places:
            group, role = f"eks:access-entry:{entry.id}", ROLES[arn]
            labels = {LABEL: entry.id, f"{LABEL}-role": role}
            body = {
                "metadata": {"name": f"{group}:{role}", "labels": labels},
                "roleRef": {"kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "Group", "name": group}],
            }
            try:
                cluster.api.create(place, body)
            except ApiError as problem:
                if problem.status != 409:  # there already
                    raise


def unbind(cluster, entry: Entry, policy: str) -> None:
    """Take an access policy from an entry, and its bindings out of the cluster."""
    if not entry.policies.pop(policy, None):
        return
    labels = f"{LABEL}={entry.id},{LABEL}-role={ROLES[policy]}"
    for kind in ("clusterrolebindings", "rolebindings"):
        for one in cluster.api.get(f"{RBAC}/{kind}", labelSelector=labels)["items"]:
            name, space = one["metadata"]["name"], one["metadata"].get("namespace")
            place = f"/namespaces/{space}" if space else ""
            cluster.api.delete(f"{RBAC}{place}/{kind}/{name}")


class Operations:
    """Part of the backend (``services/eks.py``)."""

    def create_access_entry(self, asked: dict) -> dict:
        """Make an access entry for a user or role that exists."""
        from helpers.cloud.services import iam

        cluster, principal = self.by_entries(asked), asked["principalArn"]
        kind, name = asked.get("type", "STANDARD"), principal.rsplit("/", 1)[-1]
        if not any(iam.find(what, name) == principal for what in ("user", "role")):
            raise errors.invalid("The specified principalArn is invalid: invalid principal.")
        if principal in cluster.entries:
            text = "The specified access entry resource is already in use on this cluster."
            raise errors.in_use(text)
        if kind not in ("STANDARD", "EC2_LINUX"):
            raise NotImplementedError(f"the type {kind}: all nodes are those of Linux")
        names = ("kubernetesGroups", "username", "tags")
        given = {name: asked[name] for name in names if asked.get(name)}
        _check_names(kind, given)
        return {"accessEntry": make(cluster, principal, kind, **given).facts}

    def describe_access_entry(self, asked: dict) -> dict:
        """Return an access entry."""
        return {"accessEntry": self._entry(asked)[1].facts}

    def list_access_entries(self, asked: dict) -> dict:
        """Return the principals that have an entry."""
        policy, found = asked.get("associatedPolicyArn"), self.by_entries(asked).entries
        return {"accessEntries": [n for n, e in found.items() if policy in (None, *e.policies)]}

    def update_access_entry(self, asked: dict) -> dict:
        """Change the groups and the user's name of an entry."""
        entry = self._entry(asked)[1]
        given = {name: asked[name] for name in ("kubernetesGroups", "username") if name in asked}
        _check_names(entry.facts["type"], given)
        entry.facts |= given | {"modifiedAt": utcnow()}
        return {"accessEntry": entry.facts}

    def delete_access_entry(self, asked: dict) -> dict:
        """Remove an entry and its bindings."""
        cluster, entry = self._entry(asked)
        for policy in list(entry.policies):
            unbind(cluster, entry, policy)
        del cluster.entries[asked["principalArn"]]
        return {}

    def associate_access_policy(self, asked: dict) -> dict:
        """Give an entry an access policy."""
        cluster, entry = self._entry(asked)
        policy, scope = asked["policyArn"], asked["accessScope"]
        if policy not in ROLES:
            raise errors.invalid("The policyArn parameter format is not valid")
        if entry.facts["type"] != "STANDARD":
            kind = entry.facts["type"]
            raise errors.impossible(f"Access policies are not supported for type {kind}")
        if (scope.get("type") == "namespace") != bool(scope.get("namespaces")):
            raise errors.invalid("Namespaces must be given for the scope namespace, and only then")
        done = associate(cluster, entry, policy, scope)
        return _of(asked) | {"associatedAccessPolicy": done}

    def disassociate_access_policy(self, asked: dict) -> dict:
        """Take an access policy from an entry."""
        cluster, entry = self._entry(asked)
        if asked["policyArn"] not in entry.policies:
            raise errors.missing("The specified policyArn could not be found.")
        unbind(cluster, entry, asked["policyArn"])
        return {}

    def list_associated_access_policies(self, asked: dict) -> dict:
        """Return the access policies of an entry."""
        found = list(self._entry(asked)[1].policies.values())
        return _of(asked) | {"associatedAccessPolicies": found}

    def list_access_policies(self, asked: dict) -> dict:
        """Return the access policies that there are."""
        return {"accessPolicies": [{"name": p.removeprefix(POLICY), "arn": p} for p in ROLES]}

    def by_entries(self, asked: dict):
        """Return a cluster that is up and has access entries."""
        found = self.active(asked["clusterName"])
        if found.mode == "CONFIG_MAP":
            raise errors.impossible(
                "The cluster's authentication mode must be set to one of "
                "[API, API_AND_CONFIG_MAP] to perform this operation."
            )
        return found

    def _entry(self, asked: dict):
        cluster = self.by_entries(asked)
        if asked["principalArn"] not in cluster.entries:
            raise errors.missing(
                "The specified principalArn could not be found. You can view your available "
                "access entries with 'list-access-entries'."
            )
        return cluster, cluster.entries[asked["principalArn"]]


def _of(asked: dict) -> dict:
    return {name: asked[name] for name in ("clusterName", "principalArn")}


def _check_names(kind: str, given: dict) -> None:
    """Refuse names that belong to Kubernetes or to AWS."""
    if kind != "STANDARD" and given.keys() & {"kubernetesGroups", "username"}:
        raise errors.invalid(f"Groups and username cannot be given for the type {kind}")
    named = [("group", one) for one in given.get("kubernetesGroups", [])]
    for what, name in [*named, ("user", given.get("username", ""))]:
        if begin := RESERVED.match(name):
            text = f"The kubernetes {what} name {name} is invalid, it cannot start with {begin[0]}"
            raise errors.invalid(text)
