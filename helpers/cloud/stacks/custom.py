"""Custom resources: a function of Lambda makes them, and says so at an address of ours."""

from __future__ import annotations

import json
import os
import queue
import secrets

from werkzeug.wrappers import Request, Response

from helpers.cloud import calls
from helpers.cloud.stacks.api import Caller, Failure
from helpers.cloud.stacks.resources import Resource, generated
from helpers.cloud.stacks.template import plain

DOOR = "/_custom-resource/"
_open: dict[str, queue.SimpleQueue] = {}


def answer(environ, start_response):
    """Take what a function says about its resource (WSGI); who knows the address may."""
    request = Request(environ)
    waiting = _open.get(request.path.removeprefix(DOOR))
    try:
        said = json.loads(request.get_data())
    except ValueError:
        said = None
    if request.method != "PUT" or not waiting or not isinstance(said, dict):
        return Response(status=403)(environ, start_response)
    waiting.put(said)
    return Response()(environ, start_response)


calls.DOORS[DOOR] = answer


class Custom:
    """A type of resource that a function of the template's author looks after."""

    service = name = ""

    def make(self, call: Caller, one: Resource, started) -> None:
        """Ask the function to create it."""
        self._ask(call, one, "Create")
        started()

    def change(self, call: Caller, one: Resource, old: dict, new: dict) -> None:
        """Ask the function to update it; another physical id means that it has made a new one."""
        self._ask(call, one, "Update", OldResourceProperties=_texts(old))

    def remove(self, call: Caller, one: Resource) -> None:
        """Ask the function to delete it."""
        self._ask(call, one, "Delete")

    def refer(self, one: Resource) -> str:
        """Return what Ref gives."""
        return one.physical

    def attribute(self, call: Caller, one: Resource, name: str):
        """Return what the function has said under this name."""
        data = one.made["Data"]
        if name not in data:
            raise Failure(
                f"CustomResource attribute error: Vendor response doesn't contain {name} "
                f"attribute in object {one.made['Stack']}|{one.name}|{one.made['Id']}"
            )
        return data[name]

    def _ask(self, call: Caller, one: Resource, kind: str, **more) -> None:
        token, arn = secrets.token_urlsafe(24), one.properties["ServiceToken"]
        if ":lambda:" not in arn:
            raise Failure(f"Invalid service token: the local cloud asks Lambda only, not {arn}")
        request = one.made.setdefault("Id", secrets.token_hex(16))
        event = {"RequestType": kind, "RequestId": request, "StackId": one.made["Stack"], **more}
        event |= {"ResponseURL": f"{os.environ['AWS_ENDPOINT_URL']}{DOOR}{token}"}
        event |= {"ServiceToken": arn, "ResourceProperties": _texts(one.properties)}
        event |= {"LogicalResourceId": one.name, "ResourceType": one.type}
        event |= {"PhysicalResourceId": one.physical} if one.physical else {}
        wanted = {"FunctionName": arn, "InvocationType": "Event", "Payload": json.dumps(event)}
        _open[token] = waiting = queue.SimpleQueue()
        try:
            call("lambda", "Invoke", wanted)
            said = waiting.get(timeout=int(one.properties.get("ServiceTimeout", 3600)))
        except queue.Empty:
            raise Failure(
                "CloudFormation did not receive a response from your Custom Resource. Please check "
                f"your logs for requestId [{request}]. If you are using the Python cfn-response "
                "module, you may need to update your Lambda function code so that CloudFormation "
                "can attach the updated version."
            ) from None
        finally:
            del _open[token]
        if said.get("Status") != "SUCCESS":
            raise Failure(
                "Received response status [FAILED] from custom resource. Message returned: "
                f"{said.get('Reason', '')} (RequestId: {request})"
            )
        one.physical = said.get("PhysicalResourceId") or one.physical or generated(one)
        one.made["Data"] = said.get("Data") or {}


def _texts(value):
    """Return properties as a function gets them: everything but structure is text."""
    if isinstance(value, dict):
        return {name: _texts(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_texts(one) for one in value]
    return plain(value)
