"""How properties of EKS become parameters of its API."""

from __future__ import annotations

from helpers.cloud.stacks.api import Caller
from helpers.cloud.stacks.resources import Resource, Type, changed

CHANGES = {"ScalingConfig", "UpdateConfig", "Labels", "Taints"}


def cluster(p: dict) -> dict:
    """Return a cluster, whose logs the API wants in another form."""
    types = p.get("Logging", {}).get("ClusterLogging", {}).get("EnabledTypes", [])
    logs = [{"Types": [one["Type"] for one in types], "Enabled": bool(types)}]
    return p | ({"Logging": {"ClusterLogging": logs}} if "Logging" in p else {})


def access(config: dict) -> dict:
    """Return the change of how a cluster knows its users."""
    return {"AccessConfig": {"AuthenticationMode": config.get("AuthenticationMode")}}


class Nodegroup(Type):
    """A node group, to which labels and taints are added, and from which they are taken."""

    def change(self, call: Caller, one: Resource, old: dict, new: dict) -> None:
        """Change size, labels and taints."""
        differ = changed(old, new)
        if lost := differ - CHANGES:
            what = ", ".join(sorted(lost))
            raise NotImplementedError(f"The local cloud cannot update {what} of {one.type}")
        wanted = {name: new[name] for name in ("ScalingConfig", "UpdateConfig") if name in new}
        labels, taints = new.get("Labels", {}), new.get("Taints", [])
        gone = [name for name in old.get("Labels", {}) if name not in labels]
        wanted["Labels"] = {"AddOrUpdateLabels": labels, "RemoveLabels": gone}
        gone = [taint for taint in old.get("Taints", []) if taint not in taints]
        wanted["Taints"] = {"AddOrUpdateTaints": taints, "RemoveTaints": gone}
        names = {"ClusterName": new["ClusterName"], "NodegroupName": one.facts["NodegroupName"]}
        call(self.service, "UpdateNodegroupConfig", wanted | names)
        call.wait(self.service, self.wait, names)
