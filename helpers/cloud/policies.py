"""What a policy says about a call: the language of IAM and of bucket policies."""

from __future__ import annotations

import datetime
import fnmatch
import ipaddress
import operator
import re
from collections.abc import Callable, Iterable, Mapping


def verdict(
    policies: Iterable[Mapping],
    action: str,
    resource: str,
    context: Mapping[str, str | list[str]],
    callers: set[str] | None = None,
) -> str:
    """Return what policies say about a call: ``Deny``, ``Allow``, or nothing (empty).

    Args:
        policies: policy documents; a deny in one outweighs an allow in another.
        action: ``s3:GetObject``.
        resource: its ARN, or ``*``.
        context: condition keys (lower case) and their values.
        callers: the names by which the caller goes in a resource's policy (ARNs, account number,
            service; ``*`` goes without saying); None for the caller's own policies.
    """
    said = {
        statement["Effect"]
        for policy in policies
        for statement in listed(policy.get("Statement"))
        if _applies(statement, action, resource, context, callers)
    }
    return "Deny" if "Deny" in said else "Allow" if "Allow" in said else ""


def listed(value) -> list:
    """Return a list as it is, nothing as an empty one, and a single value in one."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _applies(statement, action, resource, context, callers) -> bool:
    def filled(pattern: str) -> str:
        """Put the caller's facts into ``${aws:username}``, as characters that match themselves."""
        value = lambda m: str(context.get(m[1].lower(), ""))  # noqa: E731
        return re.sub(r"\$\{([\w:/-]+)\}", value, pattern)

    def named(element: str, test: Callable[[str], bool]) -> bool:
        if f"Not{element}" in statement:
            return not any(map(test, listed(statement[f"Not{element}"])))
        return any(map(test, listed(statement.get(element))))

    if callers is not None:
        principal = statement.get("Principal", statement.get("NotPrincipal"))
        groups = principal.values() if isinstance(principal, dict) else [principal]
        names = {name for group in groups for name in listed(group)}
        if bool(names & (callers | {"*"})) != ("Principal" in statement):
            return False
    return (
        named("Action", lambda pattern: glob(pattern.lower(), action.lower()))
        and (callers is None or "Resource" in statement or "NotResource" in statement)
        and named("Resource", lambda pattern: glob(filled(pattern), resource))
        and all(
            _holds(name, context.get(key.lower()), [filled(str(one)) for one in listed(wanted)])
            for name, tests in statement.get("Condition", {}).items()
            for key, wanted in tests.items()
        )
    )


def glob(pattern: str, text: str) -> bool:
    """Say whether a text matches a pattern, in which ``*`` and ``?`` stand for anything."""
    begin = re.match("[^*?]*", pattern)[0]  # which is quicker, with a thousand patterns
    return text.startswith(begin) and fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def _holds(name: str, actual, wanted: list[str]) -> bool:
    """Say whether one line of a condition holds; ``actual`` is None if the call has no such key."""
    quantifier, _, name = name.rpartition(":")
    name, optional = name.removesuffix("IfExists"), name.endswith("IfExists")
    if name == "Null":
        return (actual is None) == (wanted[0].lower() == "true")
    negated = "Not" in name
    compare = _COMPARE[name.replace("Not", "")]
    if actual is None:
        return negated or optional or quantifier == "ForAllValues"
    hits = [any(compare(str(one), value) for value in wanted) for one in listed(actual)]
    if negated:
        return not any(hits)
    return all(hits) if quantifier == "ForAllValues" else any(hits)


def _date(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def _converted(convert: Callable, compare: Callable) -> Callable[[str, str], bool]:
    return lambda actual, wanted: compare(convert(actual), convert(wanted))


def _like(actual: str, wanted: str) -> bool:
    return glob(wanted, actual)


def _folded(actual: str, wanted: str) -> bool:
    return actual.lower() == wanted.lower()


def _within(actual: str, wanted: str) -> bool:
    return ipaddress.ip_address(actual) in ipaddress.ip_network(wanted, strict=False)


_COMPARE: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": operator.eq,
    "StringEqualsIgnoreCase": _folded,
    "StringLike": _like,
    "ArnEquals": _like,
    "ArnLike": _like,
    "Bool": _folded,
    "IpAddress": _within,
}
for _name, _compare in {
    "Equals": operator.eq,
    "LessThan": operator.lt,
    "LessThanEquals": operator.le,
    "GreaterThan": operator.gt,
    "GreaterThanEquals": operator.ge,
}.items():
    _COMPARE[f"Numeric{_name}"] = _converted(float, _compare)
    _COMPARE[f"Date{_name}"] = _converted(_date, _compare)
