"""AWS's functions in templates: evaluated where parameters and resources have values."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable

from helpers.cloud.stacks.template import TEXT, Template, invalid, plain

NOTHING = object()  # AWS::NoValue
ERROR = "Template error: "


class Unknown(str):
    """A value that is known only when its resource has been made."""


def unknown(value) -> bool:
    """Say whether a value, or a part of it, is known only later."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, Unknown) or any(map(unknown, parts))


class Scope:
    """Where a template is evaluated: its parameters have values, and resources can be looked up."""

    def __init__(
        self,
        template: Template,
        values: dict[str, str | list[str]],
        resource: Callable[[str, str | None], str],
        outside: Callable[[str, str], str | list[str]],
    ) -> None:
        """Evaluate nothing yet.

        Args:
            template: the template.
            values: the values of parameters and pseudo parameters.
            resource: returns what Ref (None) or an attribute of a resource is.
            outside: returns an export (``Fn::ImportValue``, name), the zones of a region
                (``Fn::GetAZs``) or a parameter in the store (``ssm``).
        """
        self.template, self.values = template, values
        self.resource, self.outside = resource, outside
        self.imports: set[str] = set()  # the exports that were used
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
        ((name, body),) = value.items()
        if name == "Condition":
            return self.condition(body)
        if name == "Fn::Equals":
            first, second = map(self.evaluate, body)
            return plain(first) == plain(second)
        if name == "Fn::Not":
            return not self._true(body[0])
        if name in ("Fn::And", "Fn::Or"):
            return (all if name == "Fn::And" else any)([self._true(one) for one in body])
        raise invalid(f"{ERROR}{name} is no condition function")

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
        method = getattr(self, f"_fn_{name[4:].lower()}", None)
        if not method:
            raise NotImplementedError(f"the function {name} in a template")
        try:
            if name not in ("Fn::If", "Fn::Sub", "Fn::GetAtt"):
                body = self.evaluate(body)
                if unknown(body):
                    return Unknown(name)
            return method(body)
        except (TypeError, ValueError, KeyError, AttributeError, IndexError):
            text = f"{ERROR}every {name} object must have valid arguments"
            raise invalid(text) from None

    def _ref(self, name: str):
        if name == "AWS::NoValue":
            return NOTHING
        return self.values[name] if name in self.values else self.resource(name, None)

    def _dynamic(self, match: re.Match) -> str:
        service, _, name = match[1].partition(":")
        if service != "ssm":
            raise NotImplementedError(f"dynamic references to {service}")
        return self.outside("ssm", name)

    def _fn_getatt(self, body):
        name, attribute = body.split(".", 1) if isinstance(body, str) else body
        return self.resource(name, self.evaluate(attribute))

    def _fn_if(self, body):
        name, yes, no = body
        return self.evaluate(yes if self.condition(name) else no)

    def _fn_sub(self, body):
        text, own = (body, {}) if isinstance(body, str) else body
        own, parts = self.evaluate(own), []

        def put(match: re.Match) -> str:
            name = match[1].strip()
            if name in own:
                parts.append(own[name])
            else:
                parts.append(self._fn_getatt(name) if "." in name else self._ref(name))
            return plain(parts[-1])

        found = TEXT.sub(put, text).replace("${!", "${")
        return Unknown(found) if unknown(parts) else found

    def _fn_join(self, body):
        between, parts = body
        return between.join(map(plain, parts))

    def _fn_select(self, body):
        index, parts = body
        if not 0 <= int(index) < len(parts):
            raise invalid(f"{ERROR}Fn::Select cannot select nonexistent value at index {index}")
        return parts[int(index)]

    def _fn_split(self, body):
        between, text = body
        return text.split(between)

    def _fn_findinmap(self, body):
        try:
            return self.template.mappings[body[0]][plain(body[1])][plain(body[2])]
        except KeyError:
            if len(body) > 3:
                return body[3]["DefaultValue"]
            where = "::".join(map(plain, body))
            raise invalid(f"{ERROR}Unable to get mapping for {where}") from None

    def _fn_importvalue(self, name):
        self.imports.add(name)
        return self.outside("Fn::ImportValue", name)

    def _fn_getazs(self, region):
        return self.outside("Fn::GetAZs", region or self.values["AWS::Region"])

    def _fn_base64(self, text):
        return base64.b64encode(plain(text).encode()).decode()

    def _fn_cidr(self, body):
        block, count, bits = body[0], int(body[1]), int(body[2]) if len(body) > 2 else 8
        network = ipaddress.ip_network(block)
        parts = network.subnets(new_prefix=network.max_prefixlen - bits)
        found = [str(part) for part, _ in zip(parts, range(count), strict=False)]
        if len(found) < count:
            raise invalid(f"{ERROR}Fn::Cidr cannot cut {count} blocks from {block}")
        return found
