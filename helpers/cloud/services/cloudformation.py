"""CloudFormation: strict, with an engine that calls the cloud's own API (``helpers.cloud.stacks``).

moto's engine takes types it does not know, never rolls back and makes a second stack from a change
set, so that nothing of it is left here but the address.
"""

from __future__ import annotations

import re
import time
from types import SimpleNamespace

from moto.cloudformation.models import cloudformation_backends
from moto.core.responses import ActionResult

from helpers.cloud.calls import Refusal
from helpers.cloud.stacks import changes, engine
from helpers.cloud.stacks.request import Asked, lacking
from helpers.cloud.stacks.resources import Resource
from helpers.cloud.stacks.stack import Backend, Stack, Wish, now, pairs
from helpers.cloud.stacks.template import Template, flag, invalid

WAITER = re.compile(r" m/([^ ]*,)?B\b")  # how a client says that one of its waiters asks
UPDATABLE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_FAILED")
NO_CHANGE = (
    "The submitted information didn't contain changes. "
    "Submit different information to create a change set."
)


class Response(Asked):
    """The operations."""

    def call_action(self):
        """Answer a request; they wait for each other, and a waiter until there is an answer."""
        if WAITER.search(self.headers.get("User-Agent", "")):
            self._await()
        with self.backend.lock:
            return super().call_action()

    def _await(self) -> None:
        """Wait for what a waiter waits for: ``deploy`` would ask again after 30 s only."""
        stack, end = self.backend.find(self._get_param("StackName", "")), time.monotonic() + 20
        while stack and stack.status.endswith("_IN_PROGRESS") and time.monotonic() < end:
            if stack.status == "REVIEW_IN_PROGRESS":
                return
            time.sleep(0.05)

    def _updatable(self, stack: Stack) -> Stack:
        if stack.status not in UPDATABLE:
            text = f"Stack:{stack.id} is in {stack.status} state and can not be updated."
            raise invalid(text)
        self._renew(stack)
        return stack

    # --- Stacks

    def create_stack(self):
        """Start to create a stack."""
        name = self._get_param("StackName")
        if self.backend.find(name):
            raise Refusal("AlreadyExistsException", f"Stack [{name}] already exists")
        stack = self._new(name)
        stack.wish = self._wish(stack)
        changes.find(stack, stack.wish)
        self.backend.stacks[stack.id] = stack
        return self._create(stack, self._get_param("OnFailure"))

    def _create(self, stack: Stack, on_failure: str | None) -> ActionResult:
        off = self._get_param("DisableRollback")
        stack.on_failure = "DO_NOTHING" if off else on_failure or "ROLLBACK"
        stack.event(None, "CREATE_IN_PROGRESS", "User Initiated")
        engine.run(engine.create, stack)
        return ActionResult({"StackId": stack.id})

    def update_stack(self):
        """Start to update a stack."""
        stack = self._updatable(self._stack())
        wish = self._wish(stack, stack.wish)
        if not self._changes(stack, wish):
            raise invalid("No updates are to be performed.")
        return self._update(stack, wish)

    def _update(self, stack: Stack, wish: Wish) -> ActionResult:
        stack.updated = now()
        stack.event(None, "UPDATE_IN_PROGRESS", "User Initiated")
        engine.run(engine.update, stack, wish, not self._get_param("DisableRollback"))
        return ActionResult({"StackId": stack.id})

    def _changes(self, stack: Stack, wish: Wish) -> list[dict] | bool:
        """Return what would change among the resources; True if only something else does."""
        old, new = stack.wish.template, wish.template
        both = old.resources.keys() & new.resources.keys()
        if moved := [n for n in both if old.resources[n]["Type"] != new.resources[n]["Type"]]:
            raise invalid(
                "Update of resource type is not permitted. The new template modifies resource "
                f"type of the following resources: [{', '.join(moved)}]"
            )
        self._keep_exports(stack, new)
        found = changes.find(stack, wish)
        return found or old.outputs != new.outputs or stack.wish.tags != wish.tags

    def _keep_exports(self, stack: Stack, new: Template | None = None) -> None:
        """Refuse that an export goes which other stacks use."""
        for output in stack.outputs:
            key, export = output["OutputKey"], output.get("ExportName", "")
            kept = new and new.outputs.get(key, {}).get("Export")
            if kept and kept == stack.wish.template.outputs[key].get("Export"):
                continue
            if users := self.backend.importers(export):
                raise invalid(f"Export {export} cannot be deleted as it is in use by {users}")

    def delete_stack(self):
        """Start to delete a stack; that there is none is no error."""
        stack = self.backend.find(self._get_param("StackName"))
        if not stack or stack.status.startswith("DELETE_") and stack.status != "DELETE_FAILED":
            return ActionResult({})
        self._keep_exports(stack)
        retain = self._get_param("RetainResources") or []
        if retain and stack.status != "DELETE_FAILED":
            raise invalid(
                f"Invalid operation on stack [{stack.id}]. "
                "Specify resources to retain only when deleting a stack in DELETE_FAILED state."
            )
        with stack.lock:
            creating = stack.status == "CREATE_IN_PROGRESS"
            if re.search("(UPDATE|ROLLBACK).*_IN_PROGRESS", stack.status):
                text = f"Stack [{stack.name}] cannot be deleted while in status {stack.status}"
                raise invalid(text)
            self._renew(stack)
            stack.stopping, stack.retain = creating, retain
            stack.event(None, "DELETE_IN_PROGRESS", "User Initiated")
        if not creating:
            engine.run(engine.delete, stack)
        return ActionResult({})

    def describe_stacks(self):
        """Return one stack, or all that are not deleted."""
        found = [self._stack()] if self._get_param("StackName") else self.backend.alive()
        return ActionResult({"Stacks": [stack.described() for stack in found]})

    def list_stacks(self):
        """Return a summary of all stacks, deleted ones too."""
        wanted = self._get_param("StackStatusFilter")
        found = [stack.described() for stack in self.backend.all()]
        summaries = [one for one in found if not wanted or one["StackStatus"] in wanted]
        return ActionResult({"StackSummaries": summaries})

    def describe_stack_events(self):
        """Return what happened, newest first."""
        return ActionResult({"StackEvents": self._stack().events[::-1]})

    def _resource(self) -> tuple[Stack, Resource]:
        stack, name = self._stack(), self._get_param("LogicalResourceId")
        if found := stack.resources.get(name) or stack.gone.get(name):
            return stack, found
        raise invalid(f"Resource {name} does not exist for stack {stack.name}")

    def describe_stack_resource(self):
        """Return one resource."""
        stack, one = self._resource()
        return ActionResult({"StackResourceDetail": stack.shown(one)})

    def describe_stack_resources(self):
        """Return the resources of a stack, or one, or those of the stack that has one."""
        if self._get_param("LogicalResourceId"):
            stack, one = self._resource()
            return ActionResult({"StackResources": [stack.shown(one)]})
        stack, name = None, self._get_param("PhysicalResourceId")
        for other in self.backend.alive() if name else ():
            if name in [one.physical for one in list(other.resources.values())]:
                stack = other
        if name and not stack:
            raise invalid(f"Stack for {name} does not exist")
        stack = stack or self._stack()
        return ActionResult({"StackResources": stack.listed(stack.resources)})

    def list_stack_resources(self):
        """Return the resources of a stack, deleted ones too if it is deleted."""
        stack = self._stack()
        found = stack.resources or stack.gone
        return ActionResult({"StackResourceSummaries": stack.listed(found)})

    # --- Templates and exports

    def get_template(self):
        """Return a template as it was given."""
        return ActionResult({"TemplateBody": self._stack().wish.template.text})

    def get_template_summary(self):
        """Return what a template declares."""
        stack = self._get_param("StackName")
        return ActionResult(_summary(self._stack().wish.template if stack else self._template()))

    def validate_template(self):
        """Return what a template declares, if it is well formed."""
        return ActionResult(_summary(self._template()))

    def list_exports(self):
        """Return what stacks export."""
        found = [
            {"Name": name, "Value": value, "ExportingStackId": stack.id}
            for name, (value, stack) in self.backend.exports().items()
        ]
        return ActionResult({"Exports": found})

    def list_imports(self):
        """Return which stacks use an export."""
        name = self._get_param("ExportName")
        if users := self.backend.importers(name):
            return ActionResult({"Imports": users.split(", ")})
        if name in self.backend.exports():
            raise invalid(f"Export '{name}' is not imported by any stack.")
        raise invalid(f"No export named {name} found.")

    # --- Change sets

    def create_change_set(self):
        """Find out what would change, and keep it to be executed."""
        name, label = self._get_param("StackName"), self._get_param("ChangeSetName")
        kind = self._get_param("ChangeSetType") or "UPDATE"
        if kind == "IMPORT":
            raise NotImplementedError("change sets that import resources")
        if kind == "CREATE":
            stack = self.backend.find(name) or self._new(name)
            if stack.status not in ("", "REVIEW_IN_PROGRESS"):
                text = f"Stack [{name}] already exists and cannot be created again with the "
                raise invalid(f"{text}changeSet [{label}].")
        else:
            stack = self._updatable(self._stack())
        if label in stack.change_sets:
            raise Refusal("AlreadyExistsException", f"ChangeSet {label} already exists")
        wish = self._wish(stack, stack.wish if kind == "UPDATE" else None)
        found = changes.find(stack, wish) if kind == "CREATE" else self._changes(stack, wish)
        if not stack.status:
            stack.wish, self.backend.stacks[stack.id] = wish, stack
            stack.event(None, "REVIEW_IN_PROGRESS", "User Initiated")
        listed = found if isinstance(found, list) else []
        arn = self._arn("changeSet", label)
        ids = {"ChangeSetName": label, "ChangeSetId": arn, "CreationTime": now()}
        what = {"Description": self._get_param("Description"), "Tags": pairs(wish.tags)}
        what |= {"Capabilities": wish.capabilities, "Parameters": wish.parameters()}
        what["Changes"] = [{"Type": "Resource", "ResourceChange": one} for one in listed]
        status = {"Status": "CREATE_COMPLETE", "ExecutionStatus": "AVAILABLE"}
        if not found:
            status = {"Status": "FAILED", "ExecutionStatus": "UNAVAILABLE"}
            status["StatusReason"] = NO_CHANGE
        own = {"kind": kind, "wish": wish, "on_failure": self._get_param("OnStackFailure")}
        own |= {"StackId": stack.id, "StackName": stack.name}
        stack.change_sets[label] = ids | what | status | own
        return ActionResult({"Id": arn, "StackId": stack.id})

    def _change_set(self) -> tuple[Stack, dict]:
        name, owner = self._get_param("ChangeSetName"), self._get_param("StackName")
        for stack in [self._stack()] if owner else self.backend.alive():
            for one in stack.change_sets.values():
                if name in (one["ChangeSetName"], one["ChangeSetId"]):
                    return stack, one
        raise Refusal("ChangeSetNotFound", f"ChangeSet [{name}] does not exist", 404)

    def describe_change_set(self):
        """Return what would change."""
        return ActionResult(self._change_set()[1])

    def list_change_sets(self):
        """Return the change sets of a stack."""
        return ActionResult({"Summaries": list(self._stack().change_sets.values())})

    def delete_change_set(self):
        """Forget a change set."""
        stack, one = self._change_set()
        del stack.change_sets[one["ChangeSetName"]]
        return ActionResult({})

    def execute_change_set(self):
        """Start to do what a change set says. It works once, and only on what it was made for."""
        stack, one = self._change_set()
        if one["ExecutionStatus"] != "AVAILABLE":
            text = f"ChangeSet [{one['ChangeSetId']}] cannot be executed in its current status of "
            raise Refusal("InvalidChangeSetStatus", f"{text}[{one['Status']}]")
        creating = one["kind"] == "CREATE"
        self._renew(stack if creating else self._updatable(stack), one["wish"].role)
        stack.change_sets.clear()
        if not creating:
            self._update(stack, one["wish"])
        else:
            stack.wish = one["wish"]
            self._create(stack, one["on_failure"])
        return ActionResult({})


def _summary(template: Template) -> dict:
    found = [
        {
            "ParameterKey": name,
            "DefaultValue": None if "Default" not in one else str(one["Default"]),
            "ParameterType": one["Type"],
            "NoEcho": flag(one.get("NoEcho")),
            "Description": one.get("Description"),
            "ParameterConstraints": {"AllowedValues": [*map(str, one.get("AllowedValues", []))]},
        }
        for name, one in template.parameters.items()
    ]
    summary = {"Description": template.body.get("Description"), "Parameters": found}
    summary["ResourceTypes"] = template.types()
    if needed := lacking(template, []):
        names = ", ".join(n for n in template.types() if n.startswith("AWS::IAM::"))
        reason = f"The following resource(s) require capabilities: [{names}]"
        summary |= {"Capabilities": [needed], "CapabilitiesReason": reason}
    return summary


Backend._url_module = SimpleNamespace(
    url_bases=[r"https?://cloudformation\.(.+)\.amazonaws\.com"],
    url_paths={"{0}/$": Response.dispatch},
)
cloudformation_backends.backend = Backend
