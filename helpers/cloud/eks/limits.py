"""What the local EKS does not have: nothing is noted down that nothing is behind."""

from __future__ import annotations

MISSING = {  # part of an operation's name: why
    "Addon": "what add-ons bring is in every cluster",
    "Fargate": "all nodes are those of node groups",
    "PodIdentity": "pods do not reach the local cloud",
    "NodegroupVersion": "there is one version",
}
EMPTY = {  # operations that list them, and where
    "ListAddons": "addons",
    "ListFargateProfiles": "fargateProfileNames",
    "ListPodIdentityAssociations": "associations",
}
TAKEN = {  # the parameters that have an effect
    "CreateCluster": "name version roleArn resourcesVpcConfig logging tags accessConfig "
    "upgradePolicy bootstrapSelfManagedAddons",
    "CreateNodegroup": "clusterName nodegroupName scalingConfig diskSize subnets instanceTypes "
    "amiType nodeRole labels taints tags updateConfig capacityType version",
    "UpdateClusterConfig": "name logging accessConfig",
    "UpdateNodegroupConfig": "clusterName nodegroupName labels taints scalingConfig updateConfig",
}


def check(operation: str, asked: dict) -> None:
    """Refuse parameters that would have no effect."""
    taken = TAKEN.get(operation, " ".join(asked)).split() + ["clientRequestToken", "caller"]
    if lost := [n for n, v in asked.items() if n not in taken and v not in (None, [], {})]:
        raise NotImplementedError(f"there is nothing behind {', '.join(lost)}")
    for one in (asked.get("logging") or {}).get("clusterLogging", []):
        if one.get("enabled"):
            raise NotImplementedError("logs stay in the cluster's folder, not in CloudWatch")
