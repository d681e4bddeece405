"""How resources are made, changed and deleted: a type is a row, its properties are parameters.

Names and kinds of properties are nearly those of the API (``api.fit``); what AWS calls read-only,
and what cannot be changed without replacement, says its own schema, which cfn-lint brings along.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jmespath
from botocore.exceptions import ClientError
from moto.core.utils import get_service_model

from helpers.cloud.environment import ACCOUNT
from helpers.cloud.stacks import api
from helpers.cloud.stacks.api import Caller, Failure

PARTS = ("readOnlyProperties", "createOnlyProperties")


@dataclass
class Resource:
    """A resource of a stack."""

    name: str  # its logical id
    type: str  # AWS::S3::Bucket
    stack: str  # the name of its stack
    properties: dict = field(default_factory=dict)  # what the template says, evaluated
    physical: str = ""  # its physical id, as soon as it is there
    made: dict = field(default_factory=dict)  # what the API answered when it was made
    status: str = ""
    reason: str = ""
    time: object = None

    @property
    def facts(self) -> dict:
        """Everything that keys and attributes are made from."""
        return {**self.made, **self.properties, "id": self.physical}


@dataclass
class Setting:
    """Properties that have operations of their own, called once for each thing wanted."""

    names: str  # of the properties
    set: str  # the operation that brings a thing about
    unset: str  # the one that undoes it
    # Returns the parameters of each call; without properties, those of what is there by itself.
    wanted: Callable[[dict], list[dict]]
    key: str = ""  # as in Type, where it differs
    later: bool = False  # the properties are parameters of the creation too


@dataclass
class Type:
    """A type of resource."""

    service: str  # as boto3 calls it
    create: str  # an operation, like delete and update
    key: str  # the parameters that say which one: VpcId is the physical id, A=B is fact B
    delete: str
    ref: str = ""  # its physical id, a text of facts; if there is none, its name
    name: str = ""  # the property that names it, which is made up if it is missing
    parameters: Callable[[dict], dict] = dict  # turns properties into parameters of create
    settings: tuple[Setting, ...] = ()  # what is set apart
    gives: str = ""  # attributes, Name=way: a text of facts, or a path below what look finds
    look: str = ""  # the operation that describes it, key and path
    update: str = ""  # takes all properties
    wait: str = ""  # a waiter, for when it has been made
    gone: str = ""  # for when it has been deleted
    undo: bool = False  # settings must be undone before it can be deleted
    tidy: Callable[[str], str] = lambda name: name[:64]  # a name that is made up
    extra: dict = field(default_factory=dict)  # further parameters of update

    @property
    def attributes(self) -> dict[str, str]:
        """What Fn::GetAtt gives, and where it is found."""
        return dict(word.split("=", 1) for word in self.gives.split())

    def make(self, call: Caller, one: Resource, started: Callable[[], None]) -> None:
        """Create a resource; ``started`` is called as soon as there is a physical id."""
        properties = dict(one.properties)
        if self.name and self.name not in properties:
            properties[self.name] = one.made[self.name] = self.tidy(generated(one))
        apart = {n for s in self.settings if not s.later for n in s.names.split()}
        create = {name: value for name, value in properties.items() if name not in apart}
        if self.create:
            one.made |= call(self.service, self.create, self.parameters(create))
        ref = self.ref.format(**one.facts)
        one.physical = ref or properties.get(self.name) or generated(one)
        started()
        if self.wait:
            call.wait(self.service, self.wait, _key(one, self.key))
        for setting in self.settings:
            if not setting.later:
                self._set(call, one, setting, {}, one.properties)

    def change(self, call: Caller, one: Resource, old: dict, new: dict) -> None:
        """Update a resource in place.

        Raises:
            NotImplementedError: that cannot be done here, so that nothing was changed.
        """
        differ = changed(old, new)
        apart = {name for setting in self.settings for name in setting.names.split()}
        known = {}
        if rest := differ - apart:
            given = {name: value for name, value in new.items() if name not in apart}
            wanted = self.parameters(given) | _key(one, self.key) | self.extra
            known = self._known(wanted, self.update) if self.update else {}
            if lost := rest & (wanted.keys() - known.keys()) if self.update else rest:
                what = ", ".join(sorted(lost))
                raise NotImplementedError(f"The local cloud cannot update {what} of {one.type}")
        for setting in self.settings:
            if differ & set(setting.names.split()):
                self._set(call, one, setting, old, new)
        if known:
            call(self.service, self.update, known)
        if self.wait:
            call.wait(self.service, self.wait, _key(one, self.key))

    def remove(self, call: Caller, one: Resource) -> None:
        """Delete a resource. That it is not there any more is no error."""
        try:
            for setting in reversed(self.settings if self.undo else ()):
                self._set(call, one, setting, one.properties, {})
            if self.delete:
                wanted = _key(one, self.key) or self.parameters(one.properties)
                force = {"force": True} if one.properties.get("EmptyOnDelete") else {}
                call(self.service, self.delete, wanted | force)
            if self.gone:
                call.wait(self.service, self.gone, _key(one, self.key))
        except ClientError as problem:
            if not api.missing(problem):
                raise

    def refer(self, one: Resource) -> str:
        """Return what Ref gives."""
        return one.physical

    def attribute(self, call: Caller, one: Resource, name: str) -> str:
        """Return what Fn::GetAtt gives."""
        way = self.attributes[name]
        if not way.startswith("."):
            return way.format(**one.facts, region=call.region, account=ACCOUNT)
        operation, key, path = self.look.split()
        found = jmespath.search(path + way, call(self.service, operation, _key(one, key)))
        return "" if found is None else str(found)

    def _set(self, call: Caller, one: Resource, setting: Setting, old: dict, new: dict) -> None:
        """Make the calls between what was wanted and what is."""
        key = _key(one, setting.key or self.key)
        was = [key | each for each in setting.wanted(old)]
        wanted = [key | each for each in setting.wanted(new)]
        undo = lambda each: self._known(each, setting.unset) if setting.unset else {}  # noqa: E731
        kept = [undo(each) for each in wanted]
        for each in was:
            if setting.unset and each not in wanted and undo(each) not in kept:
                call(self.service, setting.unset, undo(each))
        for each in wanted:
            if each not in was:
                only = undo(each).keys() - self._known(each, setting.set).keys()
                call(self.service, setting.set, {n: each[n] for n in each if n not in only})

    def _known(self, parameters: dict, operation: str) -> dict:
        shape = get_service_model(self.service).operation_model(operation).input_shape
        names = {name.lower() for name in shape.members}
        return {name: value for name, value in parameters.items() if name.lower() in names}


def _key(one: Resource, key: str) -> dict:
    pairs = (word.partition("=") for word in key.split())
    return {name: f"{{{fact or 'id'}}}".format(**one.facts) for name, _, fact in pairs}


def generated(one: Resource) -> str:
    """Return a physical id as CloudFormation makes them up."""
    end = "".join(random.choices(string.ascii_letters + string.digits, k=12))
    return f"{one.stack[:24]}-{one.name[:24]}-{end}"


def changed(old: dict, new: dict) -> set[str]:
    """Return the names of the properties that differ."""
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


class Schema(NamedTuple):
    """What AWS says about a type: its properties, and which are required or fixed."""

    properties: set[str]
    required: list[str]
    fixed: set[str]


@functools.cache
def schema(name: str) -> Schema | None:
    """Return what AWS says about a type, or None if AWS has none of this name."""
    # Found, not imported: cfn-lint itself is large.
    folder = Path(importlib.util.find_spec("cfnlint").origin).parent / "data/schemas"
    files = json.loads((folder / "providers/us-east-1.json").read_text())
    if name not in files or name == "AWS::CloudFormation::CustomResource":  # it takes anything
        return None
    body = json.loads((folder / f"resources/{files[name]}.json").read_text())
    own = [
        {f"/properties/{n}" for n in body["properties"]} & {*body.get(part, ())} for part in PARTS
    ]
    given, fixed = ({path.split("/")[2] for path in paths} for paths in own)
    return Schema(body["properties"].keys() - given, body.get("required", []), fixed)


def check(one: Resource) -> None:
    """Refuse properties that AWS does not know for a type, or that are missing.

    Raises:
        Failure: with the reason.
    """
    known = schema(one.type)
    if known is None:  # a custom resource has what its function wants
        return
    if unknown := [name for name in one.properties if name not in known.properties]:
        raise Failure(f"Encountered unsupported property {unknown[0]}")
    if lacking := [name for name in known.required if name not in one.properties]:
        raise Failure(
            f"Properties validation failed for resource {one.name} with message:\n"
            f"#: required key [{lacking[0]}] not found"
        )


def replaces(name: str, differ: set[str]) -> set[str]:
    """Return which of the changed properties make a new resource necessary."""
    known = schema(name)
    return differ & known.fixed if known else differ & {"ServiceToken"}
