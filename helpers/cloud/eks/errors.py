"""How EKS refuses, and how it tells what went wrong later."""

from __future__ import annotations

import traceback

from helpers.cloud.calls import Refusal
from helpers.cluster import ClusterError


def invalid(text: str) -> Refusal:
    """Return the error for a parameter that cannot be."""
    return Refusal("InvalidParameterException", text)


def impossible(text: str) -> Refusal:
    """Return the error for what cannot be done as things are."""
    return Refusal("InvalidRequestException", text)


def in_use(text: str) -> Refusal:
    """Return the error for what is there already, or still needed."""
    return Refusal("ResourceInUseException", text, 409)


def missing(text: str) -> Refusal:
    """Return the error for what is not there."""
    return Refusal("ResourceNotFoundException", text, 404)


def note(facts: dict, status: str, code: str, problem: Exception, things: list[str]) -> None:
    """Note in the record of a cluster or node group what went wrong with which things."""
    if not isinstance(problem, ClusterError):
        traceback.print_exception(problem)
    issue = {"code": code, "message": str(problem), "resourceIds": things}
    facts |= {"health": {"issues": [issue]}, "status": status}
