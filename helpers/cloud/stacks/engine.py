"""What happens to a stack: created, updated, rolled back, deleted, with an event for every step."""

from __future__ import annotations

import datetime
import json
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from botocore.exceptions import BotoCoreError, ClientError

from helpers.cloud.calls import Refusal
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.stacks import api, resources, types
from helpers.cloud.stacks.api import Caller, Failure
from helpers.cloud.stacks.resources import Resource
from helpers.cloud.stacks.template import Scope, Template, Unknown, invalid

PROBLEMS = (ClientError, BotoCoreError, Failure, Refusal, NotImplementedError)
CANCELLED = "Resource creation cancelled"
LATE = "Stack creation time exceeded the specified timeout."


def now() -> datetime.datetime:
    """Return the time, as events carry it."""
    return datetime.datetime.now(datetime.UTC)


@dataclass
class Wish:
    """What a stack is asked to be: all that an update may change.

    Attributes:
        template: the template.
        raw: parameters as they were given.
        values: what Ref makes of parameters and pseudo parameters.
        tags: by name.
        capabilities, role: as they were given.
    """

    template: Template
    raw: dict[str, str]
    values: dict
    tags: dict[str, str]
    capabilities: list[str]
    role: str | None = None

    def secrets(self) -> list[str]:
        """Return the values of parameters that must not be shown."""
        declared = self.template.parameters
        return [
            v for n, v in self.raw.items() if v and str(declared[n].get("NoEcho")).lower() == "true"
        ]


@dataclass
class Stack:
    """A stack, with its resources in the order in which they were made.

    Attributes:
        wish: what it was last asked to be.
        outside: returns exports, zones and stored parameters (as ``template.Scope`` wants).
    """

    name: str
    id: str
    region: str
    wish: Wish
    caller: Caller
    outside: Callable
    on_failure: str = "ROLLBACK"
    protected: bool = False
    status: str = ""
    reason: str = ""
    created: datetime.datetime = field(default_factory=now)
    updated: datetime.datetime | None = None
    deleted: datetime.datetime | None = None
    token: str | None = None
    resources: dict[str, Resource] = field(default_factory=dict)
    gone: dict[str, Resource] = field(default_factory=dict)
    outputs: list[dict] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    events: list[dict] = field(default_factory=list)
    change_sets: dict[str, dict] = field(default_factory=dict)
    retain: list[str] = field(default_factory=list)
    stopping: bool = False
    deadline: float = float("inf")
    lock: threading.Lock = field(default_factory=threading.Lock)

    def event(self, one: Resource | None, status: str, reason: str = "") -> None:
        """Note what happened to a resource, or to the stack itself."""
        event = {
            "StackId": self.id,
            "StackName": self.name,
            "EventId": str(uuid.uuid4()),
            "Timestamp": now(),
            "ResourceStatus": status,
            "LogicalResourceId": one.name if one else self.name,
            "PhysicalResourceId": one.physical if one else self.id,
            "ResourceType": one.type if one else "AWS::CloudFormation::Stack",
        }
        for secret in self.wish.secrets():
            reason = reason.replace(secret, "****")
        if one:
            one.status, one.reason, one.time = status, reason, event["Timestamp"]
            text = json.dumps(one.properties)
            for secret in self.wish.secrets():
                text = text.replace(secret, "****")
            event["ResourceProperties"] = text
        else:
            self.status, self.reason = status, reason
        if reason:
            event["ResourceStatusReason"] = reason
        if self.token:
            event["ClientRequestToken"] = self.token
        self.events.append(event)

    def scope(self, wish: Wish, resource=None) -> Scope:
        """Return where a template is evaluated for this stack."""

        def outside(name: str, value: str):
            found = self.outside(name, value)
            if name == "Fn::ImportValue":
                self.imports.add(value)
            return found

        return Scope(wish.template, wish.values, resource or self.lookup, outside)

    def lookup(self, name: str, attribute: str | None):
        """Return what Ref and Fn::GetAtt give for a resource that is there."""
        one = self.resources[name]
        if attribute is None:
            return types.find(one.type).refer(one)
        return types.find(one.type).attribute(self.caller, one, attribute)

    def evaluate(self, scope: Scope, name: str) -> dict:
        """Return the properties of a resource, with the stack's tags."""
        body = scope.template.resources[name]
        found = scope.evaluate(body.get("Properties") or {})
        known = resources.schema(body["Type"])
        tags = found.get("Tags")
        if isinstance(tags, dict):
            found["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
        if self.tags and known and "Tags" in known.properties:
            own = {tag["Key"] for tag in found.get("Tags", [])}
            more = [{"Key": k, "Value": v} for k, v in self.tags.items() if k not in own]
            found["Tags"] = found.get("Tags", []) + more
        return found

    tags: dict[str, str] = field(default_factory=dict)


def wanted(scope: Scope) -> list[str]:
    """Return the names of the resources whose conditions hold, each after those it needs."""
    return [n for n in scope.template.order() if scope.holds(scope.template.resources[n])]


def check(stack: Stack, wish: Wish) -> list[dict]:
    """Return what an update to a wish would change, as change sets show it; nothing is done.

    Raises:
        Refusal: the template cannot be evaluated.
    """
    fresh: set[str] = set()  # what will have another id

    def lookup(name: str, attribute: str | None):
        if name not in scope.template.resources or name not in active:
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
        except PROBLEMS as problem:
            raise invalid(api.explain(problem)) from None

    scope = stack.scope(wish, lookup)
    order = wanted(scope)
    active, changes = set(order), []
    for name in order:
        body = wish.template.resources[name]
        one = stack.resources.get(name)
        if not one:
            fresh.add(name)
            stack.evaluate(scope, name)
            changes.append(_change("Add", name, body["Type"]))
            continue
        properties = stack.evaluate(scope, name)
        changed = _changed(one.properties, properties)
        if changed:
            replaced = resources.replaces(one.type, changed)
            sure = any(not _open(properties.get(n)) for n in replaced)
            if replaced:
                fresh.add(name)
            change = _change("Modify", name, one.type, one.physical)
            change["Replacement"] = "False" if not replaced else "True" if sure else "Conditional"
            change["Scope"] = sorted({"Tags" if n == "Tags" else "Properties" for n in changed})
            change["Details"] = [
                _detail(wish, body, n, properties.get(n), n in replaced) for n in sorted(changed)
            ]
            changes.append(change)
    for name, one in stack.resources.items():
        if name not in active:
            changes.append(_change("Remove", name, one.type, one.physical))
    for output in wish.template.outputs.values():
        if scope.holds(output):
            scope.evaluate(output)
    return changes


def _changed(old: dict, new: dict) -> set[str]:
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def _open(value) -> bool:
    """Say whether a value is known only later."""
    if isinstance(value, dict):
        return any(map(_open, value.values()))
    return any(map(_open, value)) if isinstance(value, list) else isinstance(value, Unknown)


def _change(action: str, name: str, kind: str, physical: str = "") -> dict:
    change = {"Action": action, "LogicalResourceId": name, "ResourceType": kind}
    return change | ({"PhysicalResourceId": physical} if physical else {}) | {"Scope": []}


def _detail(wish: Wish, body: dict, name: str, value, replaced: bool) -> dict:
    given = body.get("Properties", {}).get(name)
    source = "DirectModification"
    if _open(value):
        source = "ResourceReference"
    elif isinstance(given, dict) and given.get("Ref") in wish.template.parameters:
        source = "ParameterReference"
    target = {"Attribute": "Tags"} if name == "Tags" else {"Attribute": "Properties", "Name": name}
    recreation = ("Conditionally" if _open(value) else "Always") if replaced else "Never"
    if name != "Tags":
        target["RequiresRecreation"] = recreation
    static = "Dynamic" if _open(value) else "Static"
    return {"Target": target, "Evaluation": static, "ChangeSource": source}


def run(work: Callable, stack: Stack, *more) -> None:
    """Do something to a stack in a thread; a fault of ours ends it as failed, not half told."""

    def guarded() -> None:
        try:
            work(stack, *more)
        except Exception as problem:
            traceback.print_exc()
            verb = stack.status.removesuffix("_IN_PROGRESS").removesuffix("_CLEANUP")
            verb = verb.removesuffix("_COMPLETE")
            stack.event(None, f"{verb}_FAILED", f"Internal Failure: {problem!r}")

    threading.Thread(target=guarded, name=stack.name, daemon=True).start()


def create(stack: Stack) -> None:
    """Make a stack's resources; if one fails, do what ``on_failure`` says."""
    reason = _apply(stack, stack.wish, [])
    with stack.lock:  # somebody may ask for its deletion right now
        if not stack.stopping:
            if not reason:
                return stack.event(None, "CREATE_COMPLETE")
            if stack.on_failure == "DO_NOTHING":
                return stack.event(None, "CREATE_FAILED", reason)
            what = "Delete" if stack.on_failure == "DELETE" else "Rollback"
            status = f"{what.upper()}_IN_PROGRESS"
            stack.event(None, status, f"{reason} {what} requested by user.")
    if stack.status == "DELETE_IN_PROGRESS":
        return delete(stack)
    failed = _remove(stack, list(stack.resources.values()), "DeletionPolicy", rollback=True)
    for one in list(stack.resources.values()):
        if one.name not in failed:
            stack.gone[one.name] = stack.resources.pop(one.name)
    if failed:
        return stack.event(None, "ROLLBACK_FAILED", _named("delete", failed))
    stack.imports.clear()
    stack.event(None, "ROLLBACK_COMPLETE")


def update(stack: Stack, wish: Wish, rollback: bool = True) -> None:
    """Change a stack to what is wished; if a step fails, change it back."""
    before, outputs, imports = stack.wish, stack.outputs, set(stack.imports)
    order = list(stack.resources)
    journal: list[tuple[Resource, Resource | None]] = []
    stack.imports = set()
    reason = _apply(stack, wish, journal)
    if not reason:
        active = set(wanted(stack.scope(wish)))
        old = [
            was for _, was in journal if was and was.physical != stack.resources[was.name].physical
        ]
        old += [one for name, one in stack.resources.items() if name not in active]
        stack.event(None, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
        stack.wish = wish
        failed = _remove(stack, old, "", before.template)
        for name in [name for name in stack.resources if name not in active]:
            stack.gone[name] = stack.resources.pop(name)
        return stack.event(None, "UPDATE_COMPLETE", _named("delete", failed) if failed else "")
    stack.wish, stack.tags = before, before.tags
    if not rollback:
        return stack.event(None, "UPDATE_FAILED", reason)
    stack.event(None, "UPDATE_ROLLBACK_IN_PROGRESS", reason)
    failed, extra = [], []
    for one, was in reversed(journal):
        if was is None:
            extra.append(one)
        elif was.physical != one.physical:
            stack.resources[one.name] = was
            if one.physical:
                extra.append(one)
            stack.event(was, "UPDATE_COMPLETE")
        elif not _step_back(stack, one, was):
            failed.append(one.name)
    stack.outputs, stack.imports = outputs, imports
    stack.resources = {n: stack.resources[n] for n in order} | {
        o.name: o for o in extra if o.name not in order
    }
    if failed:
        return stack.event(None, "UPDATE_ROLLBACK_FAILED", _named("update", failed))
    stack.event(None, "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
    _remove(stack, extra, "", wish.template, rollback=True)
    for name in [name for name in stack.resources if name not in order]:
        stack.gone[name] = stack.resources.pop(name)
    stack.event(None, "UPDATE_ROLLBACK_COMPLETE")


def _step_back(stack: Stack, one: Resource, was: Resource) -> bool:
    """Give a resource its old properties back."""
    new, one.properties, one.made = one.properties, was.properties, was.made
    stack.event(one, "UPDATE_IN_PROGRESS")
    try:
        types.find(one.type).change(stack.caller, one, new, was.properties)
    except PROBLEMS as problem:
        stack.event(one, "UPDATE_FAILED", api.explain(problem))
        return False
    stack.event(one, "UPDATE_COMPLETE")
    return True


def delete(stack: Stack) -> None:
    """Delete a stack's resources, last first, and the stack if all of them are gone."""
    kept = [one for name, one in stack.resources.items() if name in stack.retain]
    rest = [one for name, one in stack.resources.items() if name not in stack.retain]
    for one in kept:
        stack.event(one, "DELETE_SKIPPED")
    failed = _remove(stack, rest, "DeletionPolicy")
    for one in list(stack.resources.values()):
        if one.name not in failed:
            stack.gone[one.name] = stack.resources.pop(one.name)
    if failed:
        return stack.event(None, "DELETE_FAILED", _named("delete", failed))
    stack.outputs, stack.imports, stack.deleted = [], set(), now()
    stack.event(None, "DELETE_COMPLETE")


def _named(verb: str, names: list[str]) -> str:
    return f"The following resource(s) failed to {verb}: [{', '.join(names)}]."


def _apply(stack: Stack, wish: Wish, journal: list) -> str:
    """Make or change what a wish names, in order, and what is independent at the same time.

    The journal gets each resource that was touched, with what it was before.

    Returns:
        What failed, or nothing.
    """
    stack.tags = wish.tags
    scope, failed, running = stack.scope(wish), {}, {}
    active = set(wanted(scope))
    sorter = TopologicalSorter(
        {name: needs & active for name, needs in wish.template.needs.items() if name in active}
    )
    sorter.prepare()
    late = False
    with ThreadPoolExecutor(4) as pool:
        while sorter.is_active():
            late = late or time.monotonic() > stack.deadline
            if not failed and not stack.stopping and not late:
                for name in sorter.get_ready():
                    running[pool.submit(_step, stack, scope, name, journal, failed)] = name
            if not running:
                break
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(done)
                if verb := done.result():
                    failed[name] = verb
                sorter.done(name)
    if failed or stack.stopping or late:
        return " ".join(
            _named(verb, [name for name in failed if failed[name] == verb])
            for verb in ("create", "update")
            if verb in failed.values()
        ) or (LATE if late else CANCELLED)
    try:
        stack.outputs = _outputs(scope)
        for output in stack.outputs:
            if "ExportName" in output:
                stack.outside("export", (output["ExportName"], stack))
    except PROBLEMS as problem:
        return api.explain(problem)
    return ""


def _outputs(scope: Scope) -> list[dict]:
    found = []
    for name, body in scope.template.outputs.items():
        if scope.holds(body):
            value = scope.evaluate(body["Value"])
            if isinstance(value, (list, dict)):
                raise Failure(
                    "Template format error: The Value field of every Outputs member must evaluate "
                    "to a String."
                )
            value = str(value).lower() if isinstance(value, bool) else str(value)
            output = {"OutputKey": name, "OutputValue": value}
            if "Description" in body:
                output["Description"] = body["Description"]
            if "Export" in body:
                output["ExportName"] = scope.evaluate(body["Export"]["Name"])
            found.append(output)
    return found


def _step(stack: Stack, scope: Scope, name: str, journal: list, failed: dict) -> str:
    """Bring one resource to where the template wants it; return what did not work: its verb."""
    body = scope.template.resources[name]
    was = stack.resources.get(name)
    one = Resource(name, body["Type"], stack.name, made={"Stack": stack.id})
    verb = "CREATE"
    try:
        if was is None:
            stack.resources[name] = one
            journal.append((one, None))
        kind = types.find(body["Type"])
        one.properties = stack.evaluate(scope, name)
        if was is None:
            _make(stack, kind, one)
        elif changed := _changed(was.properties, one.properties):
            verb = "UPDATE"
            one.physical, one.made = was.physical, dict(was.made)
            if resources.replaces(one.type, changed):
                _replace(stack, kind, one, was, changed, journal)
            else:
                stack.event(one, "UPDATE_IN_PROGRESS")
                resources.check(one)
                journal.append((one, was))
                stack.resources[name] = one
                kind.change(stack.caller, one, was.properties, one.properties)
        else:
            return ""
    except PROBLEMS as problem:
        stack.event(one, f"{verb}_FAILED", api.explain(problem))
        return verb.lower()
    except Exception as problem:  # a fault of ours: told, and the stack rolls back
        traceback.print_exc()
        stack.event(one, f"{verb}_FAILED", f"Internal Failure: {problem!r}")
        return verb.lower()
    if failed or stack.stopping:
        stack.event(
            one, f"{verb}_FAILED", CANCELLED if verb == "CREATE" else "Resource update cancelled"
        )
        return verb.lower()
    stack.event(one, f"{verb}_COMPLETE")
    return ""


def _make(stack: Stack, kind, one: Resource) -> None:
    stack.event(one, "CREATE_IN_PROGRESS")
    resources.check(one)
    _begin(stack, kind, one, "CREATE_IN_PROGRESS")


def _replace(stack: Stack, kind, one: Resource, was: Resource, changed: set, journal: list) -> None:
    """Make a new resource in place of one; the old one goes when the whole update has worked."""
    named = getattr(kind, "name", "")
    if named and named not in changed and named in one.properties:
        raise Failure(
            "CloudFormation cannot update a stack when a custom-named resource requires replacing. "
            f"Rename {one.properties[named]} and update the stack again."
        )
    reason = (
        "Requested update requires the creation of a new physical resource; hence creating one."
    )
    stack.event(one, "UPDATE_IN_PROGRESS", reason)
    resources.check(one)
    one.physical, one.made = "", {"Stack": stack.id}
    journal.append((one, was))
    stack.resources[one.name] = one
    _begin(stack, kind, one, "UPDATE_IN_PROGRESS")


def _begin(stack: Stack, kind, one: Resource, status: str) -> None:
    def started() -> None:
        stack.event(one, status, "Resource creation Initiated")
        _mark(stack, kind, one)

    kind.make(stack.caller, one, started)


def _mark(stack: Stack, kind, one: Resource) -> None:
    """Put CloudFormation's own tags on what EC2 has made; nobody may do that by the API."""
    if getattr(kind, "service", "") == "ec2" and one.physical:
        from moto.ec2.models import ec2_backends

        tags = {"stack-name": stack.name, "stack-id": stack.id, "logical-id": one.name}
        own = ec2_backends[ACCOUNT][stack.region].tags[one.physical]
        own.update({f"aws:cloudformation:{name}": value for name, value in tags.items()})


def _remove(
    stack: Stack, old: list[Resource], policy: str, template: Template | None = None, rollback=False
) -> list[str]:
    """Delete resources, last first, and return the names of those that could not be deleted.

    A policy of the template may keep them: its name, or none to use the one that fits.
    """
    failed, template = [], template or stack.wish.template
    rank = {name: place for place, name in enumerate(template.order())}
    for one in sorted(old, key=lambda one: -rank.get(one.name, len(rank))):
        body = template.resources.get(one.name, {})
        here = stack.resources.get(one.name)
        key = policy or ("DeletionPolicy" if here is one else "UpdateReplacePolicy")
        rule = body.get(key, "Delete")
        if rule == "Retain" or (rule == "RetainExceptOnCreate" and not rollback):
            stack.event(one, "DELETE_SKIPPED")
            continue
        if not one.physical:
            if policy:
                stack.event(one, "DELETE_COMPLETE")
            continue
        stack.event(one, "DELETE_IN_PROGRESS")
        try:
            types.find(one.type).remove(stack.caller, one)
        except PROBLEMS as problem:
            stack.event(one, "DELETE_FAILED", api.explain(problem))
            failed.append(one.name)
        else:
            stack.event(one, "DELETE_COMPLETE")
    return failed
