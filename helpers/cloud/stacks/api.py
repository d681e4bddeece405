"""The cloud's own API, as the engine calls it: in the name of the stack's caller, or its role."""

from __future__ import annotations

import json
import os
import traceback

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import create_request_object, prepare_request_dict
from botocore.credentials import Credentials
from botocore.endpoint import convert_to_response_dict
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import URLLib3Session
from botocore.loaders import Loader
from botocore.model import Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.waiter import NormalizedOperationMethod, Waiter, WaiterModel
from moto.core.utils import get_service_model

from helpers.cloud.calls import Refusal
from helpers.cloud.stacks.template import plain


class Failure(Exception):
    """A resource could not be made, changed or deleted; the message is the event's reason."""


_http = URLLib3Session(timeout=600)
_loader = Loader()


class Caller:
    """Calls the cloud's API with somebody's keys, without botocore's clients, which are large."""

    def __init__(self, key: str, secret: str, token: str | None, region: str) -> None:
        """Make no call yet."""
        self.credentials, self.region = Credentials(key, secret, token), region

    def __call__(self, service: str, operation: str, parameters: dict) -> dict:
        """Call an operation; parameters take the form that it wants, which is nearly theirs.

        Raises:
            ClientError: the service refuses.
            Failure: the operation has no such parameter, or the value cannot be one.
        """
        model = get_service_model(service)
        shapes, protocol = model.operation_model(operation), model.resolved_protocol
        try:
            wanted = fit(parameters, shapes.input_shape) if shapes.input_shape else {}
            serialized = create_serializer(protocol).serialize_to_request(wanted, shapes)
        except (BotoCoreError, ValueError) as problem:
            raise Failure(f"Properties validation failed: {problem}") from None
        prepare_request_dict(serialized, os.environ["AWS_ENDPOINT_URL"])
        request = create_request_object(serialized)
        request.stream_output = shapes.has_streaming_output
        sign = S3SigV4Auth if service == "s3" else SigV4Auth
        sign(self.credentials, model.signing_name, self.region).add_auth(request)
        answer = convert_to_response_dict(_http.send(request.prepare()), shapes)
        parsed = create_parser(protocol).parse(answer, shapes.output_shape)
        if answer["status_code"] >= 300:
            raise ClientError(parsed, operation)
        return parsed

    def wait(self, service: str, name: str, parameters: dict) -> None:
        """Wait until something is as a waiter of botocore wants it."""
        config = WaiterModel(_loader.load_service_model(service, "waiters-2")).get_waiter(name)
        call = lambda **given: self(service, config.operation, given)  # noqa: E731
        limit = {"Delay": 0.3, "MaxAttempts": 2000}
        Waiter(name, config, NormalizedOperationMethod(call)).wait(**parameters, WaiterConfig=limit)


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
        return _document(value) if isinstance(value, (dict, list)) else plain(value)
    if kind in ("integer", "long"):
        return int(value)
    if kind in ("float", "double"):
        return float(value)
    if kind == "boolean" and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if kind == "blob" and isinstance(value, str):
        return value.encode()
    return value


def _document(value: dict | list) -> str:
    """Return a document in JSON; what names a policy's statement may be a number in a template."""
    if isinstance(value, dict) and isinstance(value.get("Statement"), list):
        said = [
            one | {"Sid": plain(one["Sid"])} if isinstance(one, dict) and "Sid" in one else one
            for one in value["Statement"]
        ]
        value = value | {"Statement": said}
    return json.dumps(value)


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
