"""The cloud's own API, as the engine calls it: in the name of the stack's caller, or its role."""

from __future__ import annotations

import functools
import json
import os
import threading
import traceback

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader
from botocore.model import Shape
from moto.core.utils import get_service_model

from helpers.cloud import environment
from helpers.cloud.calls import Refusal


class Failure(Exception):
    """A resource could not be made, changed or deleted; the message is the event's reason."""


class _Loader(Loader):
    """Shares with moto what both know about a service, which is much."""

    def load_service_model(self, service_name, type_name, api_version=None):
        if type_name == "service-2" and service_name != "s3":  # whose model botocore changes
            return get_service_model(service_name)._service_description
        return super().load_service_model(service_name, type_name, api_version)


@functools.cache
def _session() -> botocore.session.Session:
    session = botocore.session.Session()
    here = str(environment.folder() / "waiters")
    session.register_component("data_loader", _Loader(extra_search_paths=[here]))
    return session


_making = threading.Lock()


@functools.lru_cache(32)
def _client(service: str, endpoint: str, **keys):
    config = Config(read_timeout=600, retries={"total_max_attempts": 1})
    return _session().create_client(service, endpoint_url=endpoint, config=config, **keys)


class Caller:
    """Calls the cloud's API with somebody's keys."""

    def __init__(self, key: str, secret: str, token: str | None, region: str) -> None:
        """Make no call yet."""
        self.keys = {"aws_access_key_id": key, "aws_secret_access_key": secret}
        self.keys |= {"aws_session_token": token, "region_name": region}

    def client(self, service: str):
        """Return a client of botocore for a service."""
        with _making:  # a session makes one at a time
            return _client(service, os.environ["AWS_ENDPOINT_URL"], **self.keys)

    def __call__(self, service: str, operation: str, parameters: dict) -> dict:
        """Call an operation; parameters take the form that it wants, which is nearly theirs.

        Raises:
            ClientError: the service refuses.
            Failure: the operation has no such parameter, or the value cannot be one.
        """
        client = self.client(service)
        model = get_service_model(service).operation_model(operation)
        try:
            wanted = fit(parameters, model.input_shape) if model.input_shape else {}
            return client._make_api_call(operation, wanted)
        except ClientError:
            raise
        except (BotoCoreError, ValueError) as problem:
            raise Failure(f"Properties validation failed: {problem}") from None

    def wait(self, service: str, name: str, parameters: dict) -> None:
        """Wait until something is as a waiter of botocore wants it."""
        client = self.client(service)
        waiter = client.get_waiter(name)
        shape = get_service_model(service).operation_model(waiter.config.operation).input_shape
        limit = {"Delay": 0.3, "MaxAttempts": 2000}
        waiter.wait(**fit(parameters, shape), WaiterConfig=limit)


def fit(value, shape: Shape, where: str = ""):
    """Return a property of a resource as the parameter of an operation.

    Names differ in their first letter only; a document is text in JSON; tags may be a map; numbers
    and truths may be written as text.

    Raises:
        Failure: the operation has no such parameter.
        ValueError: a number is none.
    """
    kind = shape.type_name
    if kind == "structure" and isinstance(value, dict):
        names = {name.lower(): name for name in shape.members}
        if unknown := [key for key in value if key.lower() not in names]:
            raise Failure(f"Encountered unsupported property {where}{unknown[0]}")
        pairs = ((names[key.lower()], one) for key, one in value.items())
        return {name: fit(one, shape.members[name], f"{name}.") for name, one in pairs}
    if kind == "list":
        values = value if isinstance(value, list) else [value]
        return [fit(one, shape.member, where) for one in values]
    if kind == "map":
        if isinstance(value, list):  # tags
            value = {one["Key"]: one["Value"] for one in value}
        return {str(key): fit(one, shape.value, where) for key, one in value.items()}
    if kind == "string":
        if isinstance(value, (dict, list)):
            return json.dumps(value)
        return str(value).lower() if isinstance(value, bool) else str(value)
    if kind in ("integer", "long"):
        return int(value)
    if kind in ("float", "double"):
        return float(value)
    if kind == "boolean" and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if kind == "blob" and isinstance(value, str):
        return value.encode()
    return value


def explain(problem: Exception) -> str:
    """Return the reason of an event, in CloudFormation's words."""
    if isinstance(problem, (BotoCoreError, Failure, Refusal, NotImplementedError)):
        return str(problem)
    if not isinstance(problem, ClientError):  # a fault of ours
        traceback.print_exception(problem)
        return f"Internal Failure: {problem!r}"
    error, answer = problem.response["Error"], problem.response["ResponseMetadata"]
    code, text = error["Code"], error.get("Message", "")
    kinds = {"Denied": "AccessDenied", "Unauthorized": "AccessDenied", "Exist": "AlreadyExists"}
    kinds |= {"NotFound": "NotFound", "NoSuch": "NotFound"}
    kind = next((kinds[part] for part in kinds if part in code), "InvalidRequest")
    status, request = answer.get("HTTPStatusCode"), answer.get("RequestId", "-")
    return (
        f'Resource handler returned message: "{text} (Operation: {problem.operation_name}, '
        f"Error Code: {code}, Status Code: {status}, Request ID: {request})"
        f'" (HandlerErrorCode: {kind})'
    )


def missing(problem: ClientError) -> bool:
    """Say whether a call failed since what it was about is not there."""
    code = problem.response["Error"]["Code"]
    return "NotFound" in code or "NoSuch" in code or "DoesNotExist" in code or code == "404"
