"""What a stack would become: the changes that a change set shows, before anything is done."""

from __future__ import annotations

from helpers.cloud.stacks import api, resources, types
from helpers.cloud.stacks.functions import Scope, Unknown, unknown
from helpers.cloud.stacks.resources import changed
from helpers.cloud.stacks.stack import Stack, Wish
from helpers.cloud.stacks.template import invalid


def wanted(scope: Scope) -> list[str]:
    """Return the names of the resources whose conditions hold, each after those it needs."""
    return [n for n in scope.template.order() if scope.holds(scope.template.resources[n])]


def find(stack: Stack, wish: Wish) -> list[dict]:
    """Return what an update to a wish would change, as change sets show it; nothing is done.

    Raises:
        Refusal: the template cannot be evaluated.
    """
    fresh: set[str] = set()  # what will have another id

    def lookup(name: str, attribute: str | None):
        if name not in active:
            raise invalid(
                f"Template format error: Unresolved resource dependencies [{name}] in the "
                "Resources block of the template"
            )
        kind = types.find(wish.template.resources[name]["Type"])
        if attribute and kind is not types.CUSTOM and attribute not in kind.attributes:
            raise invalid(
                f"Template error: resource {name} does not support attribute type {attribute} "
                "in Fn::GetAtt"
            )
        if name in fresh:
            return Unknown(f"{{{{changeSet:KNOWN_AFTER_APPLY {name}.{attribute or 'Ref'}}}}}")
        try:
            return stack.lookup(name, attribute)
        except Exception as problem:
            raise invalid(api.explain(problem)) from None

    scope = stack.scope(wish, set(), lookup)
    active, found = dict.fromkeys(wanted(scope)), []
    for name in active:
        one, body = stack.resources.get(name), wish.template.resources[name]
        properties = wish.properties(scope, name)
        if not one:
            fresh.add(name)
            found.append(_change("Add", name, body["Type"]))
        elif names := changed(one.properties, properties):
            replaced = resources.replaces(one.type, names)
            if replaced:
                fresh.add(name)
            sure = any(not unknown(properties.get(n)) for n in replaced)
            given = body.get("Properties", {})
            found.append(
                _change("Modify", name, one.type, one.physical)
                | {
                    "Replacement": "True" if sure else "Conditional" if replaced else "False",
                    "Scope": sorted({"Tags" if n == "Tags" else "Properties" for n in names}),
                    "Details": [
                        _detail(wish, n, given.get(n), properties.get(n), n in replaced)
                        for n in sorted(names)
                    ],
                }
            )
    lost = [one for name, one in stack.resources.items() if name not in active]
    found += [_change("Remove", one.name, one.type, one.physical) for one in lost]
    for output in wish.template.outputs.values():
        if scope.holds(output):
            scope.evaluate(output)
    return found


def _change(action: str, name: str, kind: str, physical: str = "") -> dict:
    return {
        "Action": action,
        "LogicalResourceId": name,
        "PhysicalResourceId": physical or None,
        "ResourceType": kind,
        "Scope": [],
    }


def _detail(wish: Wish, name: str, given, value, replaced: bool) -> dict:
    source, later = "DirectModification", unknown(value)
    if later:
        source = "ResourceReference"
    elif isinstance(given, dict) and given.get("Ref") in wish.template.parameters:
        source = "ParameterReference"
    target = {"Attribute": "Tags"}
    if name != "Tags":
        recreation = ("Conditionally" if later else "Always") if replaced else "Never"
        target = {"Attribute": "Properties", "Name": name, "RequiresRecreation": recreation}
    evaluation = "Dynamic" if later else "Static"
    return {"Target": target, "Evaluation": evaluation, "ChangeSource": source}
