"""How a phase of a build ends badly."""

from __future__ import annotations

from botocore.exceptions import ClientError

from helpers.cloud.calls import Refusal


class Failure(Exception):
    """A phase failed: the status code and the message of its context."""


class Ended(Exception):
    """The build was ended from outside: ``STOPPED`` or ``TIMED_OUT``."""


def said(problem: Exception) -> str:
    """Return an error of a service as CodeBuild writes it."""
    if isinstance(problem, Refusal):
        return f"{problem.code}: {problem.message}"
    if not isinstance(problem, ClientError):
        return str(problem)
    error, answer = problem.response["Error"], problem.response["ResponseMetadata"]
    where = f"status code: {answer.get('HTTPStatusCode')}, request id: {answer.get('RequestId')}"
    return f"{error['Code']}: {error.get('Message', '')} {where}"
