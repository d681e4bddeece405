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

    scope = stack.scope(wish, lookup)
    active, found = dict.fromkeys(wanted(scope)), []
    for name in active:
        one, body = stack.resources.get(name), wish.template.resources[name]
        properties = wish.properties(scope, name)
        if not one:
            fresh.add(name)
            found.append(_change("Add", name, body["Type"]))
        elif names := changed(one.properties, properties):
            replaced = {
                n: "Conditionally" if unknown(properties.get(n)) else "Always"
                for n in resources.replaces(one.type, names)
            }
            if replaced:
                fresh.add(name)
            change = _change("Modify", name, one.type, one.physical)
            sure = "Always" in replaced.values()
            change["Replacement"] = "True" if sure else "Conditional" if replaced else "False"
            targets = [_target(n, replaced.get(n, "Never")) for n in sorted(names)]
            change["Scope"] = sorted({target["Attribute"] for target in targets})
            change["Details"] = [{"Target": target} for target in targets]
            found.append(change)
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


def _target(name: str, recreation: str) -> dict:
    if name == "Tags":
        return {"Attribute": "Tags", "RequiresRecreation": recreation}
    return {"Attribute": "Properties", "Name": name, "RequiresRecreation": recreation}
