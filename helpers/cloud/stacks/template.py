"""Templates of CloudFormation: read and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from graphlib import CycleError, TopologicalSorter

import yaml

from helpers.cloud.calls import Refusal

SECTIONS = ("Parameters", "Mappings", "Conditions", "Resources", "Outputs")
KNOWN = {*SECTIONS, "AWSTemplateFormatVersion", "Description", "Metadata"}
NOT_HERE = ("Transform", "Rules", "Hooks")
RESOURCE = set(
    "Type Properties DependsOn Condition Metadata DeletionPolicy UpdateReplacePolicy UpdatePolicy "
    "CreationPolicy".split()
)
PSEUDO = {
    f"AWS::{name}"
    for name in (
        "AccountId NotificationARNs NoValue Partition Region StackId StackName URLSuffix".split()
    )
}
invalid = partial(Refusal, "ValidationError")  # takes the message
TEXT = re.compile(r"\$\{([^!{}][^{}]*)\}")  # what Fn::Sub puts in
BASIC = r"(?:AWS::EC2::\w+::\w+|String|Number)"
MANY = rf"CommaDelimitedList|List<{BASIC}>"
TYPES = re.compile(
    rf"{BASIC}|{MANY}|AWS::SSM::Parameter::Name|AWS::SSM::Parameter::Value<({BASIC}|{MANY})>"
)


def _malformed(text: str) -> Refusal:
    return invalid(f"Template format error: {text}")


def plain(value) -> str:
    """Return a value as the text that AWS makes of it."""
    if isinstance(value, (dict, list)):
        raise TypeError("text expected")
    return str(value).lower() if isinstance(value, bool) else str(value)


def flag(value) -> bool:
    """Say whether something is true, as a word too."""
    return str(value).lower() == "true"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML with short forms of functions, in which dates stay what is written."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
    for first, found in _Loader.yaml_implicit_resolvers.items()
}


def _short(loader: _Loader, name: str, node: yaml.Node):
    """Read ``!Name value`` as ``{"Fn::Name": value}``."""
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = _mapping(loader, node)
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    loader.flatten_mapping(node)
    found = {}
    for key, value in node.value:
        name = loader.construct_object(key, deep=True)
        if str(name) in found:
            raise yaml.constructor.ConstructorError(None, None, "", key.start_mark)
        found[str(name)] = loader.construct_object(value, deep=True)
    return found


_Loader.add_multi_constructor("!", _short)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


class Template:
    """A template that is well formed.

    Attributes:
        text: as it was given.
        parameters, mappings, conditions, resources, outputs: its sections.
        needs: for each resource, the resources that must be there before it.
    """

    def __init__(self, text: str) -> None:
        """Read and check a template.

        Raises:
            Refusal: AWS would not take it.
            NotImplementedError: it needs what the course does not have.
        """
        self.text, self.body = text, _parse(text)
        if not isinstance(self.body, dict):
            raise _malformed("unsupported structure.")
        if unknown := [name for name in self.body if name not in (*KNOWN, *NOT_HERE)]:
            raise invalid(f"Invalid template property or properties [{', '.join(unknown)}]")
        if found := [name for name in NOT_HERE if self.body.get(name)]:
            raise NotImplementedError(f"{found[0]} in a template")
        if self.body.get("AWSTemplateFormatVersion", "2010-09-09") != "2010-09-09":
            raise _malformed(
                "unsupported value for AWSTemplateFormatVersion. Supported value is: 2010-09-09"
            )
        for name in SECTIONS:
            section = self.body.get(name) or {}
            if not isinstance(section, dict):
                raise _malformed(f"{name} must be an object")
            setattr(self, name.lower(), section)
        if not self.resources:
            raise _malformed("At least one Resources member must be defined.")
        for one in self.parameters.values():
            if not isinstance(one, dict) or "Type" not in one:
                raise _malformed("Every Parameters object must contain a Type member.")
            if not TYPES.fullmatch(one["Type"]):
                raise _malformed(f"Unrecognized parameter type: {one['Type']}")
        for name, one in self.resources.items():
            _check_resource(name, one)
        for name, one in self.outputs.items():
            if not isinstance(one, dict) or "Value" not in one:
                raise _malformed(
                    f"Output {name} is malformed. Every Outputs member must contain a Value object"
                )
        self._check_references()
        self.needs = {
            name: {found for found in references(one) if found in self.resources}
            for name, one in self.resources.items()
        }
        self.order()

    def order(self) -> list[str]:
        """Return the names of the resources, each after those that it needs."""
        try:
            return list(TopologicalSorter(self.needs).static_order())
        except CycleError as problem:
            names = ", ".join(sorted(set(problem.args[1])))
            raise invalid(f"Circular dependency between resources: [{names}]") from None

    def types(self) -> list[str]:
        """Return the types of its resources, each once."""
        return sorted({one["Type"] for one in self.resources.values()})

    def _check_references(self) -> None:
        names = self.parameters.keys() | PSEUDO | {f"?{name}" for name in self.conditions}
        for block in ("Conditions", "Resources", "Outputs"):
            section = [*getattr(self, block.lower()).values()]
            lost = [name for name in dict.fromkeys(references(section)) if name not in names]
            if conditions := [name[1:] for name in lost if name.startswith("?")]:
                raise _malformed(
                    f"Unresolved condition dependency {conditions[0]} in the {block} block of the "
                    "template"
                )
            if lost and block == "Conditions":
                raise _malformed(
                    f"Unresolved dependencies [{', '.join(lost)}]. "
                    "Cannot reference resources in the Conditions block of the template"
                )
            if lost:
                raise _malformed(
                    f"Unresolved resource dependencies [{', '.join(lost)}] in the {block} block "
                    "of the template"
                )
            names |= self.resources.keys()


def _parse(text: str):
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as problem:
            where = f"(line {problem.lineno}, column {problem.colno})"
            raise _malformed(f"JSON not well-formed. {where}") from None
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        where = f"(line {mark.line + 1}, column {mark.column + 1})"
    except yaml.YAMLError as problem:
        where = f"({str(problem).splitlines()[0]})"
    raise _malformed(f"YAML not well-formed. {where}")


def _check_resource(name: str, one) -> None:
    if not name.isalnum() or not name.isascii():
        raise _malformed(f"Resource name {name} is non alphanumeric.")
    if not isinstance(one, dict) or not isinstance(one.get("Type"), str):
        raise _malformed(f"[/Resources/{name}] Every Resources object must contain a Type member.")
    if unknown := [key for key in one if key not in RESOURCE]:
        raise invalid(f"Invalid template resource property '{unknown[0]}'")
    if not isinstance(one.get("Properties") or {}, dict):
        raise _malformed(f"[/Resources/{name}/Properties] must be an object")
    if one.get("CreationPolicy"):
        raise NotImplementedError("a CreationPolicy, which waits for signals")
    for key in ("DeletionPolicy", "UpdateReplacePolicy"):
        policy = one.get(key, "Delete")
        if policy in ("Snapshot", "RetainExceptOnCreate"):
            raise NotImplementedError(f"the {key} {policy}")
        if policy not in ("Delete", "Retain"):
            raise _malformed(f"Unrecognized {key} {policy} for resource {name}")


def references(value) -> Iterator[str]:
    """Yield the names that a part of a template refers to; those of conditions begin with ``?``."""
    if isinstance(value, list):
        for one in value:
            yield from references(one)
    for key, one in value.items() if isinstance(value, dict) else ():
        if key == "Ref" and isinstance(one, str):
            yield one
        elif key == "Fn::GetAtt":
            yield one.partition(".")[0] if isinstance(one, str) else one[0]
        elif key == "Fn::Sub":
            text, own = (one, {}) if isinstance(one, str) else one
            names = [name for name in TEXT.findall(text) if name not in own]
            yield from (name.strip().partition(".")[0] for name in names)
            yield from references(own)
        elif key == "DependsOn":
            yield from [one] if isinstance(one, str) else one
        elif key == "Condition" and isinstance(one, str):
            yield f"?{one}"  # a policy's statement has a Condition too, but that is no name
        else:
            if key == "Fn::If" and isinstance(one, list) and one:
                yield f"?{one[0]}"
            yield from references(one)
