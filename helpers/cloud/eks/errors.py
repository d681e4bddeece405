"""How EKS refuses, and how it tells what went wrong later."""

from __future__ import annotations

import traceback
from functools import partial

from helpers.cloud.calls import Refusal
from helpers.cluster import ClusterError

# Each takes the message.
invalid = partial(Refusal, "InvalidParameterException")
impossible = partial(Refusal, "InvalidRequestException")  # as things are
in_use = partial(Refusal, "ResourceInUseException", status=409)  # there already, or still needed
missing = partial(Refusal, "ResourceNotFoundException", status=404)


def note(facts: dict, status: str, code: str, problem: Exception, things: list[str]) -> None:
    """Note in the record of a cluster or node group what went wrong with which things."""
    if not isinstance(problem, ClusterError):
        traceback.print_exception(problem)
    issue = {"code": code, "message": str(problem), "resourceIds": things}
    facts |= {"health": {"issues": [issue]}, "status": status}
