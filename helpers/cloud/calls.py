"""What happens to every call: it is named, checked, handed to moto, answered and noted.

An answer is in AWS's own format whatever happens: a call that moto does not have is refused at
once, and a fault inside moto is an ``InternalFailure`` that says where to read on.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import UnknownServiceError
from botocore.model import OperationNotFoundError
from moto.backends import get_backend
from moto.core.exceptions import ServiceException
from moto.core.model import OperationModel
from moto.core.request import Request, determine_request_protocol
from moto.core.responses import boto3_service_name
from moto.core.routing import NotFound, get_service_router
from moto.core.serialize import SERIALIZERS, get_serializer_class
from moto.core.utils import get_service_model, service_name_from_moto_package_name
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.wrappers import Response

from helpers import ledger
from helpers.cloud import extensions

CREDENTIAL = re.compile(r"Credential=([^/\s]+/\d{8}/[^/\s]+/[^/\s]+/aws4_request)")
# moto's switches for tests, which ask nobody who they are, and its canned instance metadata.
MOTOS_OWN = ("/moto-api", "/latest/")
MISSING = (
    "The local cloud of this course does not have {call.name}{why}. Do the step in another way, "
    "or on a real account (LAB_AWS=real). `grep NotImplemented {log}` lists all such calls."
)
FAULT = (
    "The local cloud failed at {call.name}: {type}: {problem}. This is a fault of its own, not of "
    "your call; the traceback is at the end of {log}."
)


class Refusal(ServiceException):
    """What a call is refused with: AWS's error code, a message, and the HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(code, message)
        self.status = status


@dataclass
class Call:
    """One call of an AWS operation.

    Attributes:
        request: the HTTP request, as moto reads it.
        backend: moto's package for the service, or None if moto does not have it.
        service: the service's name, as boto3 and the CLI have it (``s3``, ``elbv2``).
        operation: the operation's name (``CreateBucket``), or ``?`` if it cannot be told.
        key: the access key id that it says it is signed with, or ``anonymous``.
        labels: the parts of its path that have a name (``Bucket`` and ``Key``; for EKS ``name``).
        credential: ``key/date/region/service/aws4_request``, or empty.
        error: the code of the error that it was refused with by us, or empty.
    """

    request: Request
    backend: str | None
    service: str
    operation: str
    key: str
    labels: dict[str, str]
    credential: str
    error: str = ""

    @property
    def name(self) -> str:
        """Service and operation, as policies write them (``s3:CreateBucket``)."""
        return f"{self.service}:{self.operation}"

    @property
    def protocol(self) -> str:
        """How client and service talk: ``json``, ``query``, ``ec2``, ``rest-json``, ``rest-xml``.

        It is ``json`` if it is none of these, or the service is not known.
        """
        try:
            model = get_service_model(self.service)
            protocol = determine_request_protocol(model, self.request.content_type)
        except (UnknownServiceError, NotImplementedError):
            return "json"
        return protocol if protocol in SERIALIZERS else "json"

    def refused(self, problem: Refusal) -> Response:
        """Return an error in the format of the service's protocol."""
        self.error = problem.code
        try:
            service = get_service_model(self.service)
        except UnknownServiceError:
            body = json.dumps({"__type": problem.code, "message": problem.message})
            return Response(body, problem.status, {"x-amzn-ErrorType": problem.code})
        try:
            operation = service.operation_model(self.operation)
        except OperationNotFoundError:
            operation = OperationModel({}, service)
        answer = get_serializer_class(self.service, self.protocol)(operation).serialize(problem)
        return Response(answer["body"], problem.status, answer["headers"])


# Functions that look at every call before moto does, and raise Refusal to stop it.
CHECKS: list[Callable[[Call], None]] = []
# Addresses that are no calls of AWS and prove who may come in another way: beginning, WSGI app.
DOORS: dict[str, Callable] = {}


class Dispatcher(DomainDispatcherApplication):
    """moto's dispatcher of HTTP requests (WSGI), with an eye on every call."""

    def __init__(self, folder: Path) -> None:
        """Note the calls in ``requests.log`` of a folder."""
        super().__init__(create_backend_app)
        self.folder = folder
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
        self.log = os.open(folder / "requests.log", flags, 0o600)

    def __call__(self, environ, start_response):
        """Answer one request."""
        if environ["PATH_INFO"] == "/_lab":  # is it you? (helpers.cloud.local)
            return Response(os.environ.get(ledger.MARK, ""))(environ, start_response)
        if environ["PATH_INFO"].startswith(MOTOS_OWN):
            return Response(status=404)(environ, start_response)
        for door, app in DOORS.items():
            if environ["PATH_INFO"].startswith(door):
                if CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", "")):
                    break  # some calls begin so too
                return app(environ, start_response)
        call = self.identify(environ)
        response = self.answer(call)
        self.note(call, response.status_code)
        return response(environ, start_response)

    def identify(self, environ) -> Call:
        """Tell which call a request makes; its body can be read once more afterwards."""
        request = Request(environ)
        credential = request.args.get("X-Amz-Credential")
        if credential and "HTTP_AUTHORIZATION" not in environ:
            # A presigned URL says there what others say in the header, where moto looks for it.
            environ["HTTP_AUTHORIZATION"] = f"AWS4-HMAC-SHA256 Credential={credential}, "
        signed = CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
        credential = signed[1] if signed else ""
        key, *_, service, _ = credential.split("/") if signed else ("", "s3", "")
        if service != "s3" or request.method == "POST":
            environ["wsgi.input"] = io.BytesIO(request.get_data())
        host = self.infer_service_region_host(environ, environ["PATH_INFO"])
        backend = self.get_backend_for_host(host or "s3.us-east-1.amazonaws.com")
        if backend:
            service = service_name_from_moto_package_name(backend)
            service = boto3_service_name.get(service, service)
        if service == "elb" and request.values.get("Version") != "2012-06-01":
            service = "elbv2"  # two services at one address
        key = key or request.args.get("AWSAccessKeyId", "anonymous")
        operation, labels = _operation(service, request)
        return Call(request, backend, service, operation, key, labels, credential)

    def answer(self, call: Call) -> Response:
        """Return moto's answer, or an error that a client understands."""
        missing = "" if call.backend else ", nor anything of this service"
        log = self.folder / "requests.log"
        try:
            if call.backend:
                get_backend(call.backend)
                extensions.load(call.backend)  # so that the first call too meets what is ours
            for check in CHECKS:
                check(call)
            if not missing:
                moto = super().__call__
                response = Response.from_app(moto, call.request.environ, buffered=True)
                if not _nobody_answered(call, response):
                    return response
        except Refusal as problem:
            return call.refused(problem)
        except NotImplementedError as problem:
            missing = "" if "action has not been" in str(problem) else f" ({problem})"
        except Exception as problem:
            print(f"\n{_now()} {call.name}", file=sys.stderr)
            traceback.print_exc()
            facts = {"type": type(problem).__name__, "problem": problem}
            text = FAULT.format(call=call, log=self.folder / "server.log", **facts)
            # Not 500: clients would try again, and do half of it twice.
            return call.refused(Refusal("InternalFailure", text, 501))
        text = MISSING.format(call=call, why=missing, log=log)
        return call.refused(Refusal("NotImplemented", text, 501))

    def note(self, call: Call, status: int) -> None:
        """Note a call in one line: time, key id, service, operation, HTTP status, our refusal."""
        words = [_now(), call.key, call.service, call.operation, str(status), call.error]
        line = " ".join(re.sub(r"\s", "_", word) for word in words if word)
        os.write(self.log, f"{line}\n".encode())


def _operation(service: str, request: Request) -> tuple[str, dict[str, str]]:
    """Return the operation that a request names, in the way of its service's protocol.

    In the REST protocols that is the path, whose parts come with it.
    """
    if service != "s3" and (name := request.values.get("Action")):
        return name, {}
    if target := request.headers.get("X-Amz-Target"):
        return target.split(".")[-1], {}
    try:
        operation, labels = get_service_router(service).match(request)
    except (NotFound, NotImplementedError, UnknownServiceError):
        return "?", {}
    return operation.name, labels


def _nobody_answered(call: Call, response: Response) -> bool:
    """Say whether an answer is only moto's web framework's: it has no such path."""
    if response.status_code not in (404, 405):
        return False
    body = response.get_data()
    return body.startswith(b"<!doctype html>") or (not body and call.operation == "?")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
