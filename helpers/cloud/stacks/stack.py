"""What the engine works on: the stacks of a region, and what each is asked to be."""

from __future__ import annotations

import datetime
import json
import threading
import uuid
from dataclasses import dataclass, field

from botocore.exceptions import ClientError
from moto.core.base_backend import BaseBackend

from helpers.cloud.stacks import api, resources, types
from helpers.cloud.stacks.api import Caller
from helpers.cloud.stacks.functions import Scope
from helpers.cloud.stacks.resources import Resource
from helpers.cloud.stacks.template import Template, flag, invalid


def now() -> datetime.datetime:
    """Return the time, as events carry it."""
    return datetime.datetime.now(datetime.UTC)


def pairs(tags: dict[str, str]) -> list[dict]:
    """Return tags as AWS writes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


class Backend(BaseBackend):
    """The stacks of a region, by id; one request at a time decides what happens to them."""

    def __init__(self, region_name: str, account_id: str) -> None:
        """Have no stacks."""
        super().__init__(region_name, account_id)
        self.stacks: dict[str, Stack] = {}
        self.lock = threading.RLock()

    def find(self, name: str) -> Stack | None:
        """Return a stack by id, or by name if it is not deleted."""
        return self.stacks.get(name) or next((s for s in self.alive() if s.name == name), None)

    def stack(self, name: str) -> Stack:
        """Return a stack, or refuse as AWS does."""
        if found := self.find(name):
            return found
        raise invalid(f"Stack with id {name} does not exist")

    def all(self) -> list[Stack]:
        """Return all stacks, newest first."""
        return list(self.stacks.values())[::-1]  # at once: others may make one meanwhile

    def alive(self) -> list[Stack]:
        """Return the stacks that are not deleted, newest first."""
        return [s for s in self.all() if s.status != "DELETE_COMPLETE"]

    def exports(self) -> dict[str, tuple[str, Stack]]:
        """Return value and stack of each exported name."""
        return {
            output["ExportName"]: (output["OutputValue"], stack)
            for stack in self.all()
            for output in stack.outputs
            if "ExportName" in output and not stack.status.startswith("CREATE_IN")
        }

    def importers(self, export: str) -> str:
        """Return the names of the stacks that use an export."""
        return ", ".join(stack.name for stack in self.alive() if export in stack.imports)


@dataclass
class Wish:
    """What a stack is asked to be: all that an update may change."""

    template: Template
    raw: dict[str, str]  # parameters as they were given
    values: dict  # what Ref makes of parameters and pseudo parameters
    tags: dict[str, str]  # by name
    capabilities: list[str]
    role: str | None

    def parameters(self) -> list[dict]:
        """Return the parameters as they may be shown."""
        found = []
        for name, value in self.raw.items():
            declared, resolved = self.template.parameters[name], self.values[name]
            shown = "****" if flag(declared.get("NoEcho")) else value
            found.append({"ParameterKey": name, "ParameterValue": shown})
            if declared["Type"].startswith("AWS::SSM::Parameter::Value"):
                text = ",".join(resolved) if isinstance(resolved, list) else resolved
                found[-1]["ResolvedValue"] = text
        return found

    def properties(self, scope: Scope, name: str) -> dict:
        """Return the properties of a resource, with the stack's tags."""
        body = self.template.resources[name]
        found = scope.evaluate(body.get("Properties") or {})
        known = resources.schema(body["Type"])
        if isinstance(found.get("Tags"), dict):
            found["Tags"] = pairs(found["Tags"])
        if self.tags and known and "Tags" in known.properties:
            given = found.get("Tags", [])
            own = {tag["Key"] for tag in given}
            found["Tags"] = given + [tag for tag in pairs(self.tags) if tag["Key"] not in own]
        return found


@dataclass
class Stack:
    """A stack, with its resources in the order in which they were made."""

    backend: Backend
    name: str
    id: str
    caller: Caller  # in whose name the engine works
    wish: Wish | None = None  # what it was last asked to be
    on_failure: str = "ROLLBACK"
    status: str = ""
    reason: str = ""
    created: datetime.datetime = field(default_factory=now)
    updated: datetime.datetime | None = None
    deleted: datetime.datetime | None = None
    resources: dict[str, Resource] = field(default_factory=dict)
    gone: dict[str, Resource] = field(default_factory=dict)  # what it had before
    outputs: list[dict] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    events: list[dict] = field(default_factory=list)
    change_sets: dict[str, dict] = field(default_factory=dict)
    retain: list[str] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)  # values that are not shown
    stopping: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def event(self, one: Resource | None, status: str, reason: str = "") -> None:
        """Note what happened to a resource, or to the stack itself."""
        text = json.dumps(one.properties) if one else None
        for secret in self.secrets:
            reason = reason.replace(secret, "****")
            text = text and text.replace(secret, "****")
        one = one or Resource(self.name, "AWS::CloudFormation::Stack", "", physical=self.id)
        one.status, one.reason, one.time = status, reason, now()
        if one.physical == self.id:
            self.status, self.reason = status, reason
        more = {"EventId": str(uuid.uuid4()), "ResourceProperties": text}
        more["PhysicalResourceId"] = one.physical  # empty as long as there is none
        self.events.append(self.shown(one) | more)

    def scope(self, wish: Wish, resource=None) -> Scope:
        """Return where a template is evaluated for this stack."""
        return Scope(wish.template, wish.values, resource or self.lookup, self.outside)

    def lookup(self, name: str, attribute: str | None):
        """Return what Ref and Fn::GetAtt give for a resource that is there."""
        one = self.resources[name]
        kind = types.find(one.type)
        return kind.attribute(self.caller, one, attribute) if attribute else kind.refer(one)

    def outside(self, name: str, value: str):
        """Return what a template takes from elsewhere (see ``template.Scope``)."""
        try:
            if name == "Fn::ImportValue":
                return self.backend.exports()[value][0]
            if name == "Fn::GetAZs":
                zones = self.caller("ec2", "DescribeAvailabilityZones", {})["AvailabilityZones"]
                return [zone["ZoneName"] for zone in zones]
            return self.caller("ssm", "GetParameter", {"Name": value})["Parameter"]["Value"]
        except KeyError:
            raise invalid(f"No export named {value} found.") from None
        except ClientError as problem:
            text = "{Code}: {Message}".format(**problem.response["Error"])
            if api.missing(problem):
                text = (
                    f"Unable to fetch parameters [{value}] from parameter store for this account."
                )
            raise invalid(text) from None

    def described(self) -> dict:
        """Return the stack as DescribeStacks shows it."""
        wish, description = self.wish, self.wish.template.body.get("Description")
        ids = {"StackId": self.id, "StackName": self.name, "StackStatus": self.status}
        ids |= {"Description": description, "TemplateDescription": description}
        ids |= {"StackStatusReason": self.reason or None, "Outputs": self.outputs}
        times = {"CreationTime": self.created, "LastUpdatedTime": self.updated}
        times |= {"DeletionTime": self.deleted}
        asked = {"Parameters": wish.parameters(), "Capabilities": wish.capabilities}
        asked |= {"RoleARN": wish.role, "Tags": pairs(wish.tags)}
        return ids | times | asked | {"DisableRollback": self.on_failure == "DO_NOTHING"}

    def listed(self, found: dict[str, Resource]) -> list[dict]:
        """Return resources as they are now, although the engine may be at work on them."""
        return [self.shown(one) for one in list(found.values())]

    def shown(self, one: Resource) -> dict:
        """Return a resource as it is now, in the form that all operations and events share."""
        ids = {"LogicalResourceId": one.name, "PhysicalResourceId": one.physical or None}
        status = {"ResourceStatus": one.status, "ResourceStatusReason": one.reason or None}
        times = {"Timestamp": one.time, "LastUpdatedTimestamp": one.time}
        more = {"StackId": self.id, "StackName": self.name, "ResourceType": one.type}
        return ids | status | times | more
