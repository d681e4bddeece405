"""Where an EKS cluster and its nodes are: subnets, and a security group."""

from __future__ import annotations

import random

from moto.ec2.models import ec2_backends

from helpers.cloud.eks import errors
from helpers.cloud.environment import ACCOUNT

GROUP = "EKS created security group applied to ENI that is attached to EKS Control Plane"


def subnets(region: str, names: list[str]) -> list:
    """Return subnets, if they are all there."""
    there = {one.id: one for one in ec2_backends[ACCOUNT][region].describe_subnets()}
    if lost := [name for name in names if name not in there]:
        raise errors.invalid(
            f"The subnet ID '{lost[0]}' does not exist (Service: AmazonEC2; Status Code: 400; "
            "Error Code: InvalidSubnetID.NotFound)"
        )
    return [there[name] for name in names]


def config(region: str, asked: dict) -> dict:
    """Return where a cluster is going to be, as describe-cluster answers it."""
    chosen = subnets(region, asked.get("subnetIds") or [])
    if len({one.availability_zone for one in chosen}) < 2:
        raise errors.invalid("Subnets specified must be in at least two different AZs")
    if len({one.vpc_id for one in chosen}) > 1:
        raise errors.invalid("Subnets specified must belong to the same VPC")
    if asked.get("endpointPublicAccess") is False or asked.get("publicAccessCidrs"):
        raise NotImplementedError("the endpoint is on this machine, for whoever works on it")
    return {
        "subnetIds": asked["subnetIds"],
        "securityGroupIds": asked.get("securityGroupIds") or [],
        "vpcId": chosen[0].vpc_id,
        "endpointPublicAccess": True,
        "endpointPrivateAccess": bool(asked.get("endpointPrivateAccess")),
        "publicAccessCidrs": ["0.0.0.0/0"],
    }


def security_group(region: str, cluster: str, vpc: str) -> str:
    """Make the security group that is a cluster's own, and return its id."""
    name = f"eks-cluster-sg-{cluster}-{random.randrange(10**9, 10**10)}"
    return ec2_backends[ACCOUNT][region].create_security_group(name, GROUP, vpc).id
