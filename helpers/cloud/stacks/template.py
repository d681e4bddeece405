"""Templates of CloudFormation: read, checked, and evaluated with AWS's functions."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter

import yaml

from helpers.cloud.calls import Refusal

SECTIONS = {
    "AWSTemplateFormatVersion",
    "Description",
    "Metadata",
    "Parameters",
    "Mappings",
    "Conditions",
    "Resources",
    "Outputs",
    "Transform",
    "Rules",
    "Hooks",
}
RESOURCE = {
    "Type",
    "Properties",
    "DependsOn",
    "Condition",
    "Metadata",
    "DeletionPolicy",
    "UpdateReplacePolicy",
    "CreationPolicy",
    "UpdatePolicy",
}
POLICIES = {"Delete", "Retain", "RetainExceptOnCreate", "Snapshot"}
PSEUDO = {"AWS::URLSuffix"} | {
    f"AWS::{name}"
    for name in "AccountId NotificationARNs NoValue Partition Region StackId StackName".split()
}
TEXT = re.compile(r"\$\{([^!{}][^{}]*)\}")  # what Fn::Sub puts in
NOTHING = object()  # AWS::NoValue


def invalid(text: str) -> Refusal:
    """Return AWS's error for what is wrong with a request or its template."""
    return Refusal("ValidationError", text)


class Unknown(str):
    """A value that is known only when its resource has been made."""


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
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for place, (key, (where, _)) in enumerate(zip(keys, node.value, strict=True)):
        if key in keys[:place]:
            raise yaml.constructor.ConstructorError(None, None, "", where.start_mark)
    values = [loader.construct_object(value, deep=True) for _, value in node.value]
    return {str(key): value for key, value in zip(keys, values, strict=True)}


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
            raise invalid("Template format error: unsupported structure.")
        if unknown := [name for name in self.body if name not in SECTIONS]:
            raise invalid(f"Invalid template property or properties [{', '.join(unknown)}]")
        for name in ("Transform", "Rules", "Hooks"):
            if self.body.get(name):
                raise NotImplementedError(f"{name} in a template")
        if self.body.get("AWSTemplateFormatVersion", "2010-09-09") != "2010-09-09":
            raise invalid(
                "Template format error: unsupported value for AWSTemplateFormatVersion. "
                "Supported value is: 2010-09-09"
            )
        for name in ("Parameters", "Mappings", "Conditions", "Resources", "Outputs"):
            section = self.body.get(name) or {}
            if not isinstance(section, dict):
                raise invalid(f"Template format error: {name} must be an object")
            setattr(self, name.lower(), section)
        if not self.resources:
            raise invalid("Template format error: At least one Resources member must be defined.")
        for one in self.parameters.values():
            if not isinstance(one, dict) or "Type" not in one:
                raise invalid(
                    "Template format error: Every Parameters object must contain a Type member."
                )
            if not TYPES.fullmatch(one["Type"]):
                raise invalid(f"Template format error: Unrecognized parameter type: {one['Type']}")
        for name, one in self.resources.items():
            _check_resource(name, one)
        for name, one in self.outputs.items():
            if not isinstance(one, dict) or "Value" not in one:
                raise invalid(
                    f"Template format error: Output {name} is malformed. "
                    "Every Outputs member must contain a Value object"
                )
        self._check_references()
        self.needs = {
            name: {found for found, _ in references(one) if found in self.resources}
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
        for block in ("Resources", "Outputs", "Conditions"):
            section = getattr(self, block.lower())
            known = set(self.parameters) | PSEUDO
            known |= set(self.resources) if block != "Conditions" else set()
            found = (
                dict.fromkeys(references(section))
                if block != "Resources"
                else {one: None for body in section.values() for one in references(body)}
            )
            if lost := list(dict.fromkeys(name for name, _ in found if name not in known)):
                if block == "Conditions":
                    raise invalid(
                        f"Template format error: Unresolved dependencies [{', '.join(lost)}]. "
                        "Cannot reference resources in the Conditions block of the template"
                    )
                raise invalid(
                    f"Template format error: Unresolved resource dependencies "
                    f"[{', '.join(lost)}] in the {block} block of the template"
                )
            for name in _conditions(section):
                if name not in self.conditions:
                    raise invalid(
                        f"Template format error: Unresolved condition dependency {name} "
                        f"in the {block} block of the template"
                    )


def _parse(text: str):
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as problem:
            where = f"(line {problem.lineno}, column {problem.colno})"
            raise invalid(f"Template format error: JSON not well-formed. {where}") from None
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        where = f"(line {mark.line + 1}, column {mark.column + 1})"
    except yaml.YAMLError as problem:
        where = f"({str(problem).splitlines()[0]})"
    raise invalid(f"Template format error: YAML not well-formed. {where}")


def _check_resource(name: str, one) -> None:
    if not name.isalnum() or not name.isascii():
        raise invalid(f"Template format error: Resource name {name} is non alphanumeric.")
    if not isinstance(one, dict) or not isinstance(one.get("Type"), str):
        raise invalid(
            f"Template format error: [/Resources/{name}] Every Resources object must contain "
            "a Type member."
        )
    if unknown := [key for key in one if key not in RESOURCE]:
        raise invalid(f"Invalid template resource property '{unknown[0]}'")
    if not isinstance(one.get("Properties") or {}, dict):
        raise invalid(f"Template format error: [/Resources/{name}/Properties] must be an object")
    if one.get("CreationPolicy"):
        raise NotImplementedError("a CreationPolicy, which waits for signals")
    for key in ("DeletionPolicy", "UpdateReplacePolicy"):
        policy = one.get(key, "Delete")
        if policy not in POLICIES:
            raise invalid(f"Template format error: Unrecognized {key} {policy} for resource {name}")
        if policy == "Snapshot":
            raise NotImplementedError(f"the {key} Snapshot")


def references(value) -> Iterator[tuple[str, str | None]]:
    """Yield what a part of a template refers to: a name, and the attribute or None."""
    if isinstance(value, list):
        for one in value:
            yield from references(one)
    if not isinstance(value, dict):
        return
    for key, one in value.items():
        if key == "Ref" and isinstance(one, str):
            yield one, None
        elif key == "Fn::GetAtt":
            name, _, attribute = (
                one.partition(".") if isinstance(one, str) else (one[0], "", one[1])
            )
            yield name, attribute if isinstance(attribute, str) else ""
        elif key == "Fn::Sub":
            text, own = (one, {}) if isinstance(one, str) else one
            for name in TEXT.findall(text):
                if name not in own:
                    name, _, attribute = name.strip().partition(".")
                    yield name, attribute or None
            yield from references(own)
        elif key == "DependsOn":
            yield from ((name, None) for name in ([one] if isinstance(one, str) else one))
        else:
            yield from references(one)


def _conditions(value) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _conditions(one)
    if isinstance(value, dict):
        for key, one in value.items():
            if key == "Condition" and isinstance(one, str):
                yield one
            elif key == "Fn::If" and isinstance(one, list) and one:
                yield one[0]
            # A policy's statement has a Condition too, but that is no name.
            yield from _conditions(one)


IDS = (
    "AvailabilityZone::Name|Image::Id|Instance::Id|KeyPair::KeyName|SecurityGroup::GroupName"
    "|SecurityGroup::Id|Subnet::Id|Volume::Id|VPC::Id"
)
BASIC = rf"String|Number|List<Number>|List<String>|CommaDelimitedList|(List<)?AWS::EC2::({IDS})>?"
TYPES = re.compile(rf"{BASIC}|AWS::SSM::Parameter::Name|AWS::SSM::Parameter::Value<({BASIC})>")


def parameters(
    template: Template,
    given: dict[str, str | None],
    previous: dict[str, str],
    ask: Callable[[str, str], str],
) -> tuple[dict[str, str], dict[str, str | list[str]]]:
    """Return the parameters of a stack: as they were given, and what Ref makes of them.

    Args:
        template: the template that declares them.
        given: values by name; None stands for the previous one.
        previous: the values that the stack had before.
        ask: returns what stands in the Parameter Store (``AWS::SSM::Parameter::Value``), or the
            value itself if such a thing exists (``AWS::EC2::VPC::Id``); raises Refusal.
    """
    if unknown := [name for name in given if name not in template.parameters]:
        raise invalid(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    raw = {}
    for name, declared in template.parameters.items():
        value = given.get(name, declared.get("Default"))
        if name in given and value is None:
            value = previous.get(name)
        if value is not None:
            raw[name] = str(value).lower() if isinstance(value, bool) else str(value)
    if missing := [name for name in template.parameters if name not in raw]:
        raise invalid(f"Parameters: [{', '.join(missing)}] must have values")
    return raw, {
        name: _value(name, raw[name], declared, ask)
        for name, declared in template.parameters.items()
    }


def _value(name: str, text: str, declared: dict, ask: Callable[[str, str], str]):
    kind = declared["Type"]
    _check_value(name, text, declared)
    if stored := re.fullmatch(r"AWS::SSM::Parameter::Value<(.*)>", kind):
        text, kind = ask("AWS::SSM::Parameter::Value", text), stored[1]
    many = kind == "CommaDelimitedList" or kind.startswith("List<")
    values = [part.strip() for part in text.split(",")] if many and text else []
    single = re.sub(r"^List<(.*)>$", r"\1", kind)
    for value in values if many else [text]:
        if single == "Number" and not _number(value):
            raise invalid(f"Parameter '{name}' must be a number")
        if single.startswith("AWS::"):
            try:
                ask(single, value)
            except LookupError:
                raise invalid(
                    f"Parameter validation failed: parameter value {value} for parameter name "
                    f"{name} does not exist"
                ) from None
    return values if many else text


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_value(name: str, text: str, declared: dict) -> None:
    """Hold a value against the constraints of its parameter."""
    problem = ""
    allowed = [
        str(one).lower() if isinstance(one, bool) else str(one)
        for one in declared.get("AllowedValues", [])
    ]
    kind = declared["Type"]
    parts = (
        [part.strip() for part in text.split(",")]
        if kind == "CommaDelimitedList" or kind.startswith("List<")
        else [text]
    )
    if allowed and not set(parts) <= set(allowed):
        problem = "must be one of AllowedValues"
    elif "AllowedPattern" in declared and not all(
        re.fullmatch(declared["AllowedPattern"], part) for part in parts
    ):
        problem = f"must match pattern {declared['AllowedPattern']}"
    elif len(text) < int(declared.get("MinLength", 0)):
        problem = f"must contain at least {declared['MinLength']} characters"
    elif len(text) > int(declared.get("MaxLength", 1 << 30)):
        problem = f"must contain at most {declared['MaxLength']} characters"
    elif kind == "Number" and not _number(text):
        problem = "must be a number"
    elif kind == "Number" and float(text) < float(declared.get("MinValue", "-inf")):
        problem = f"must be a number not less than {declared['MinValue']}"
    elif kind == "Number" and float(text) > float(declared.get("MaxValue", "inf")):
        problem = f"must be a number not greater than {declared['MaxValue']}"
    if problem and (description := declared.get("ConstraintDescription")):
        raise invalid(f"Parameter {name} failed to satisfy constraint: {description}")
    if problem:
        raise invalid(f"Parameter '{name}' {problem}")


class Scope:
    """Where a template is evaluated: its parameters have values, and resources can be looked up."""

    def __init__(
        self,
        template: Template,
        values: dict[str, str | list[str]],
        resource: Callable[[str, str | None], str],
        outside: Callable[[str, str], str | list[str]],
    ) -> None:
        """Evaluate the conditions.

        Args:
            template: the template.
            values: the values of parameters and pseudo parameters.
            resource: returns what Ref (None) or an attribute of a resource is.
            outside: returns an export (``Fn::ImportValue``, name), the zones of a region
                (``Fn::GetAZs``) or a parameter in the store (``ssm``).
        """
        self.template, self.values = template, values
        self.resource, self.outside = resource, outside
        self._known: dict[str, bool] = {}

    def holds(self, body: dict) -> bool:
        """Say whether a resource or an output is wanted: it has no condition, or that holds."""
        return "Condition" not in body or self.condition(body["Condition"])

    def condition(self, name: str) -> bool:
        """Return the value of a condition of the template."""
        if name not in self._known:
            self._known[name] = False  # a condition in a circle
            self._known[name] = self._true(self.template.conditions[name])
        return self._known[name]

    def _true(self, value) -> bool:
        value = {"Condition": value} if isinstance(value, str) else value
        ((name, body),) = value.items()
        if name == "Condition":
            return self.condition(body)
        if name == "Fn::Equals":
            first, second = map(self.evaluate, body)
            return _text(first) == _text(second)
        if name == "Fn::Not":
            return not self._true(body[0])
        if name in ("Fn::And", "Fn::Or"):
            return (all if name == "Fn::And" else any)([self._true(one) for one in body])
        raise invalid(f"Template error: {name} is no condition function")

    def evaluate(self, value):
        """Return a part of a template with all functions replaced by what they give."""
        if isinstance(value, list):
            found = [self.evaluate(one) for one in value]
            return [one for one in found if one is not NOTHING]
        if isinstance(value, str):
            return re.sub(r"\{\{resolve:([^}]*)\}\}", self._dynamic, value)
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, body),) = value.items()
            if name == "Ref":
                return self._ref(body)
            if name.startswith("Fn::"):
                return self._call(name, body)
        found = {key: self.evaluate(one) for key, one in value.items()}
        return {key: one for key, one in found.items() if one is not NOTHING}

    def _call(self, name: str, body):
        method = FUNCTIONS.get(name)
        if not method:
            raise NotImplementedError(f"the function {name} in a template")
        if method not in (Scope._if, Scope._sub, Scope._getatt):
            body = self.evaluate(body)
        try:
            return method(self, body)
        except (TypeError, ValueError, KeyError, AttributeError, IndexError):
            raise invalid(
                f"Template error: every {name} object must have valid arguments"
            ) from None

    def _ref(self, name: str):
        if name == "AWS::NoValue":
            return NOTHING
        return self.values[name] if name in self.values else self.resource(name, None)

    def _getatt(self, body):
        name, attribute = body.split(".", 1) if isinstance(body, str) else body
        return self.resource(name, self.evaluate(attribute))

    def _if(self, body):
        name, yes, no = body
        return self.evaluate(yes if self.condition(name) else no)

    def _sub(self, body):
        text, own = (body, {}) if isinstance(body, str) else body
        own, parts = self.evaluate(own), []

        def put(match: re.Match) -> str:
            name = match[1].strip()
            if name in own:
                value = own[name]
            elif "." in name:
                value = self.resource(*name.split(".", 1))
            else:
                value = self._ref(name)
            parts.append(value)
            return _text(value)

        return _mark(TEXT.sub(put, text).replace("${!", "${"), parts)

    def _join(self, body):
        between, parts = body
        if isinstance(parts, Unknown):
            return parts
        return _mark(between.join(map(_text, parts)), parts)

    def _select(self, body):
        index, parts = body
        if isinstance(parts, Unknown) or isinstance(index, Unknown):
            return Unknown(parts)
        if not 0 <= int(index) < len(parts):
            raise invalid(
                f"Template error: Fn::Select cannot select nonexistent value at index {index}"
            )
        return parts[int(index)]

    def _split(self, body):
        between, text = body
        return text if isinstance(text, Unknown) else text.split(between)

    def _find(self, body):
        try:
            return self.template.mappings[body[0]][_text(body[1])][_text(body[2])]
        except KeyError:
            if len(body) > 3:
                return body[3]["DefaultValue"]
            where = "::".join(map(_text, body))
            raise invalid(f"Template error: Unable to get mapping for {where}") from None

    def _import(self, name):
        return name if isinstance(name, Unknown) else self.outside("Fn::ImportValue", name)

    def _zones(self, region):
        return self.outside("Fn::GetAZs", region or self.values["AWS::Region"])

    def _base64(self, text):
        return _mark(base64.b64encode(_text(text).encode()).decode(), [text])

    def _cidr(self, body):
        block, count, bits = body[0], int(body[1]), int(body[2]) if len(body) > 2 else 8
        if isinstance(block, Unknown):
            return block
        network = ipaddress.ip_network(block)
        parts = network.subnets(new_prefix=network.max_prefixlen - bits)
        found = [str(part) for part, _ in zip(parts, range(count), strict=False)]
        if len(found) < count:
            raise invalid(f"Template error: Fn::Cidr cannot cut {count} blocks from {block}")
        return found

    def _dynamic(self, match: re.Match) -> str:
        service, _, name = match[1].partition(":")
        if service != "ssm":
            raise NotImplementedError(f"dynamic references to {service}")
        return self.outside("ssm", name)


FUNCTIONS = {
    "Fn::Base64": Scope._base64,
    "Fn::Cidr": Scope._cidr,
    "Fn::FindInMap": Scope._find,
    "Fn::GetAZs": Scope._zones,
    "Fn::GetAtt": Scope._getatt,
    "Fn::If": Scope._if,
    "Fn::ImportValue": Scope._import,
    "Fn::Join": Scope._join,
    "Fn::Select": Scope._select,
    "Fn::Split": Scope._split,
    "Fn::Sub": Scope._sub,
}


def _text(value) -> str:
    if isinstance(value, (dict, list)):
        raise TypeError("text expected")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _mark(text: str, parts) -> str:
    """Return a text that is unknown as long as one of its parts is."""
    return Unknown(text) if any(isinstance(part, Unknown) for part in parts) else text
