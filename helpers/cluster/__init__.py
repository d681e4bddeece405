"""Kubernetes: a cluster that always answers, its nodes, and the ways to them."""

from helpers.cluster.images import image
from helpers.cluster.ladder import provide_command, running, start, use
from helpers.cluster.local import Cluster, ClusterError, create, find
from helpers.cluster.programs import ProgramError
from helpers.cluster.traffic import traffic

__all__ = [
    "Cluster",
    "ClusterError",
    "ProgramError",
    "create",
    "find",
    "image",
    "provide_command",
    "running",
    "start",
    "traffic",
    "use",
]
