"""What happens to a stack: created, updated, rolled back, deleted, with an event for every step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter

from helpers.cloud.environment import ACCOUNT
from helpers.cloud.stacks import api, resources, types
from helpers.cloud.stacks.api import Failure
from helpers.cloud.stacks.changes import wanted
from helpers.cloud.stacks.functions import Scope
from helpers.cloud.stacks.resources import Resource, changed
from helpers.cloud.stacks.stack import Stack, Wish, now
from helpers.cloud.stacks.template import Template, invalid, plain

CANCELLED = {"CREATE": "Resource creation cancelled", "UPDATE": "Resource update cancelled"}
REPLACING = "Requested update requires the creation of a new physical resource; hence creating one."
Journal = list[tuple[Resource, Resource | None]]  # what was touched, and what it was before


def run(work: Callable, stack: Stack, *more) -> None:
    """Do something to a stack in a thread; a fault of ours ends it as failed, not half told."""

    def guarded() -> None:
        try:
            work(stack, *more)
        except Exception as problem:
            verb = stack.status.removesuffix("_IN_PROGRESS").removesuffix("_CLEANUP")
            stack.event(None, f"{verb.removesuffix('_COMPLETE')}_FAILED", api.explain(problem))

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
            reason = f"{reason} {what} requested by user."
            stack.event(None, f"{what.upper()}_IN_PROGRESS", reason)
    if stack.status == "DELETE_IN_PROGRESS":
        return delete(stack)
    if failed := _remove(stack, stack.resources.values(), stack.wish.template):
        return stack.event(None, "ROLLBACK_FAILED", _named("delete", failed))
    stack.imports = set()
    stack.event(None, "ROLLBACK_COMPLETE")


def update(stack: Stack, wish: Wish, rollback: bool = True) -> None:
    """Change a stack to what is wished; if a step fails, change it back."""
    before, outputs, imports = stack.wish, stack.outputs, stack.imports
    order, journal = list(stack.resources), []
    reason = _apply(stack, wish, journal)
    if reason:
        stack.outputs, stack.imports = outputs, imports
        if not rollback:
            return stack.event(None, "UPDATE_FAILED", reason)
        stack.event(None, "UPDATE_ROLLBACK_IN_PROGRESS", reason)
        return _undo(stack, wish.template, order, journal)
    stack.event(None, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
    stack.wish = wish
    old = [was for one, was in journal if was and was.physical != one.physical]
    active = set(wanted(stack.scope(wish)))
    old += [one for name, one in stack.resources.items() if name not in active]
    failed = _remove(stack, old, before.template)
    for name in failed:  # forgotten all the same
        if name not in active:
            stack.gone[name] = stack.resources.pop(name)
    stack.event(None, "UPDATE_COMPLETE", _named("delete", failed) if failed else "")


def _undo(stack: Stack, template: Template, order: list[str], journal: Journal) -> None:
    """Roll an update back: old properties are set again, and what is new is deleted."""
    failed, new = [], []
    for one, was in reversed(journal):
        if was and was.physical == one.physical:
            changed_to, one.properties, one.made = one.properties, was.properties, was.made
            stack.event(one, "UPDATE_IN_PROGRESS")
            try:
                types.find(one.type).change(stack.caller, one, changed_to, was.properties)
            except NotImplementedError:
                pass  # nor was it changed before
            except Exception as problem:
                stack.event(one, "UPDATE_FAILED", api.explain(problem))
                failed.append(one.name)
                continue
            stack.event(one, "UPDATE_COMPLETE")
        elif was:
            stack.resources[one.name] = was
            stack.event(was, "UPDATE_COMPLETE")
        if not was or was.physical != one.physical and one.physical:
            new.append(one)
    stack.resources = {n: stack.resources[n] for n in [*order, *stack.resources.keys() - order]}
    if failed:
        return stack.event(None, "UPDATE_ROLLBACK_FAILED", _named("update", failed))
    stack.event(None, "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
    for name in _remove(stack, new, template):
        if name not in order:
            stack.gone[name] = stack.resources.pop(name)
    stack.event(None, "UPDATE_ROLLBACK_COMPLETE")


def delete(stack: Stack) -> None:
    """Delete a stack's resources, last first, and the stack if all of them are gone."""
    if failed := _remove(stack, stack.resources.values(), stack.wish.template):
        return stack.event(None, "DELETE_FAILED", _named("delete", failed))
    stack.outputs, stack.imports, stack.deleted = [], set(), now()
    stack.event(None, "DELETE_COMPLETE")


def _remove(stack: Stack, old, template: Template) -> list[str]:
    """Delete resources, last first, and return the names of those that could not be deleted."""
    failed, rank = [], {name: place for place, name in enumerate(template.order())}
    for one in sorted(old, key=lambda one: -rank.get(one.name, len(rank))):
        here = stack.resources.get(one.name) is one
        policy = "DeletionPolicy" if here else "UpdateReplacePolicy"
        keep = template.resources.get(one.name, {}).get(policy) == "Retain"
        if keep or one.name in stack.retain:
            stack.event(one, "DELETE_SKIPPED")
        else:
            try:
                if one.physical:
                    stack.event(one, "DELETE_IN_PROGRESS")
                    types.find(one.type).remove(stack.caller, one)
            except Exception as problem:
                stack.event(one, "DELETE_FAILED", api.explain(problem))
                failed.append(one.name)
                continue
            stack.event(one, "DELETE_COMPLETE")
        if here:
            stack.gone[one.name] = stack.resources.pop(one.name)
    return failed


def _named(verb: str, names: list[str]) -> str:
    return f"The following resource(s) failed to {verb}: [{', '.join(names)}]."


def _apply(stack: Stack, wish: Wish, journal: Journal) -> str:
    """Make or change what a wish names, in order, and what is independent at the same time.

    Returns:
        What failed, or nothing.
    """
    scope, failed, running = stack.scope(wish), {}, {}
    stack.imports = scope.imports
    active = set(wanted(scope))
    sorter = TopologicalSorter({name: wish.template.needs[name] & active for name in active})
    sorter.prepare()
    with ThreadPoolExecutor(4) as pool:
        while sorter.is_active():
            if not failed and not stack.stopping:
                for name in sorter.get_ready():
                    running[pool.submit(_step, stack, wish, scope, name, journal, failed)] = name
            if not running:
                break
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(done)
                if verb := done.result():
                    failed[name] = verb
                sorter.done(name)
    if failed or stack.stopping:
        parts = {verb: [n for n in failed if failed[n] == verb] for verb in ("create", "update")}
        told = " ".join(_named(verb, names) for verb, names in parts.items() if names)
        return told or CANCELLED["CREATE"]
    try:
        stack.outputs = _outputs(stack, scope)
    except Exception as problem:
        return api.explain(problem)
    return ""


def _outputs(stack: Stack, scope: Scope) -> list[dict]:
    found, exports = [], stack.backend.exports()
    for name, body in scope.template.outputs.items():
        if not scope.holds(body):
            continue
        value = scope.evaluate(body["Value"])
        if isinstance(value, (list, dict)):
            raise Failure(
                "Template format error: The Value field of every Outputs member must evaluate "
                "to a String."
            )
        found.append({"OutputKey": name, "OutputValue": plain(value)})
        found[-1]["Description"] = body.get("Description")
        if "Export" in body:
            found[-1]["ExportName"] = export = scope.evaluate(body["Export"]["Name"])
            if export in exports and exports[export][1] is not stack:
                other = exports[export][1].name
                raise invalid(f"Export with name {export} is already exported by stack {other}.")
    return found


def _step(stack: Stack, wish: Wish, scope: Scope, name: str, journal: Journal, failed) -> str:
    """Bring one resource to where the template wants it; return what did not work: its verb."""
    was = stack.resources.get(name)
    one = Resource(name, wish.template.resources[name]["Type"], stack.name)
    one.made = dict(was.made) if was else {"Stack": stack.id}
    one.physical, verb = (was.physical, "UPDATE") if was else ("", "CREATE")
    kind = types.find(one.type)
    try:
        if not was:
            stack.resources[name] = one
            journal.append((one, None))
        one.properties = wish.properties(scope, name)
        names = changed(was.properties, one.properties) if was else set()
        if was and not names:
            return ""
        replaced = was and resources.replaces(one.type, names)
        if replaced and kind.name and kind.name not in names and kind.name in one.properties:
            raise Failure(
                "CloudFormation cannot update a stack when a custom-named resource requires "
                f"replacing. Rename {one.properties[kind.name]} and update the stack again."
            )
        stack.event(one, f"{verb}_IN_PROGRESS", REPLACING if replaced else "")
        resources.check(one)
        if replaced:
            one.physical, one.made = "", {"Stack": stack.id}
        if was:
            stack.resources[name] = one
            journal.append((one, was))
        if was and not replaced:
            kind.change(stack.caller, one, was.properties, one.properties)
        else:
            started = lambda: _started(stack, kind, one, f"{verb}_IN_PROGRESS")  # noqa: E731
            kind.make(stack.caller, one, started)
    except Exception as problem:
        stack.event(one, f"{verb}_FAILED", api.explain(problem))
        return verb.lower()
    if failed or stack.stopping:
        stack.event(one, f"{verb}_FAILED", CANCELLED[verb])
        return verb.lower()
    stack.event(one, f"{verb}_COMPLETE")
    return ""


def _started(stack: Stack, kind, one: Resource, status: str) -> None:
    """Tell it, and put CloudFormation's tags on what EC2 has made; no API would let anybody."""
    stack.event(one, status, "Resource creation Initiated")
    if kind.service == "ec2" and one.physical:
        from moto.ec2.models import ec2_backends

        tags = {"stack-name": stack.name, "stack-id": stack.id, "logical-id": one.name}
        own = ec2_backends[ACCOUNT][stack.caller.region].tags[one.physical]
        own.update({f"aws:cloudformation:{name}": value for name, value in tags.items()})
