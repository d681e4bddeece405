"""Parameters of a template: the values that they have, if these fit what is declared."""

from __future__ import annotations

import re
from collections.abc import Callable

from helpers.cloud.stacks.template import Template, invalid, plain


def parameters(
    template: Template,
    given: dict[str, str | None],
    previous: dict[str, str],
    ask: Callable[[str], str],
) -> tuple[dict[str, str], dict[str, str | list[str]]]:
    """Return the parameters of a stack: as they were given, and what Ref makes of them.

    Args:
        template: the template that declares them.
        given: values by name; None stands for the previous one.
        previous: the values that the stack had before.
        ask: returns what stands in the Parameter Store; raises Refusal.
    """
    if unknown := [name for name in given if name not in template.parameters]:
        raise invalid(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    raw = {n: one["Default"] for n, one in template.parameters.items() if "Default" in one}
    raw |= {name: previous.get(name) if v is None else v for name, v in given.items()}
    if missing := [name for name in template.parameters if raw.get(name) is None]:
        raise invalid(f"Parameters: [{', '.join(missing)}] must have values")
    raw = {name: plain(raw[name]) for name in template.parameters}
    declared = template.parameters
    return raw, {name: _value(name, text, declared[name], ask) for name, text in raw.items()}


def _value(name: str, text: str, declared: dict, ask: Callable[[str], str]):
    """Return the value of a parameter, if it fits what is declared."""
    kind = declared["Type"]
    many = kind == "CommaDelimitedList" or kind.startswith("List<")
    parts = [part.strip() for part in text.split(",")] if many else [text]
    if problem := _problem(declared, text, parts):
        if description := declared.get("ConstraintDescription"):
            raise invalid(f"Parameter {name} failed to satisfy constraint: {description}")
        raise invalid(f"Parameter '{name}' {problem}")
    if kind.startswith("AWS::SSM::"):
        found = ask(text)
        if kind == "AWS::SSM::Parameter::Name":
            return text
        inner = {"Type": kind.partition("<")[2].removesuffix(">")}
        return _value(name, found, inner, ask)
    return (parts if text else []) if many else text


def _problem(declared: dict, text: str, parts: list[str]) -> str:
    """Return which constraint a value does not satisfy, or nothing."""
    allowed, pattern = declared.get("AllowedValues"), declared.get("AllowedPattern")
    least, most = declared.get("MinLength", 0), declared.get("MaxLength", "inf")
    low, high = declared.get("MinValue", "-inf"), declared.get("MaxValue", "inf")
    if allowed and not set(parts) <= set(map(plain, allowed)):
        return "must be one of AllowedValues"
    if pattern is not None and not all(re.fullmatch(pattern, part) for part in parts):
        return f"must match pattern {pattern}"
    if len(text) < float(least):
        return f"must contain at least {least} characters"
    if len(text) > float(most):
        return f"must contain at most {most} characters"
    if "Number" in declared["Type"] and text:
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            return "must be a number"
        if min(numbers) < float(low):
            return f"must be a number not less than {low}"
        if max(numbers) > float(high):
            return f"must be a number not greater than {high}"
    return ""
