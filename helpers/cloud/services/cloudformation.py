"""CloudFormation: strict, with an engine that calls the cloud's own API (``helpers.cloud.stacks``).

moto's engine takes types it does not know, never rolls back and makes a second stack from a change
set, so that nothing of it is left here but the address.
"""

from __future__ import annotations

import re
import time
import uuid
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

from botocore.exceptions import ClientError
from moto.cloudformation.models import cloudformation_backends
from moto.core.responses import ActionResult, BaseResponse

from helpers.cloud import signatures
from helpers.cloud.calls import Refusal
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import sts
from helpers.cloud.stacks import changes, engine, resources, types
from helpers.cloud.stacks.api import Caller
from helpers.cloud.stacks.parameters import parameters
from helpers.cloud.stacks.resources import Resource
from helpers.cloud.stacks.stack import Backend, Stack, Wish, now, pairs
from helpers.cloud.stacks.template import Template, flag, invalid

WAITER = re.compile(r" m/([^ ]*,)?B\b")  # how a client says that one of its waiters asks
UPDATABLE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_FAILED")
NOT_HERE = (
    "NotificationARNs RollbackConfiguration StackPolicyBody EnableTerminationProtection "
    "TimeoutInMinutes"
)
NO_CHANGE = (
    "The submitted information didn't contain changes. "
    "Submit different information to create a change set."
)


class Response(BaseResponse):
    """The operations."""

    def __init__(self) -> None:
        """Read parameters as botocore describes them."""
        super().__init__(service_name="cloudformation")
        self.automated_parameter_parsing = True

    @property
    def backend(self) -> Backend:
        """The stacks of the region that was asked."""
        return cloudformation_backends[self.current_account][self.region]

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

    # --- What a request says

    def _stack(self) -> Stack:
        return self.backend.stack(self._get_param("StackName"))

    def _caller(self, role: str | None) -> Caller:
        if role:
            return Caller(*sts.assume(role, "cloudformation"), self.region)
        found = signatures._credentials(self.access_key)
        return Caller(found.access_key, found.secret_key, found.token, self.region)

    def _template(self, stack: Stack | None = None) -> Template:
        body, url = self._get_param("TemplateBody"), self._get_param("TemplateURL")
        if stack and self._get_param("UsePreviousTemplate"):
            return stack.wish.template
        if not (body or url):
            raise invalid("Either Template URL or Template Body must be specified.")
        if body and len(body) > 51200:
            raise invalid(
                "1 validation error detected: Value at 'templateBody' failed to satisfy "
                "constraint: Member must have length less than or equal to 51200"
            )
        template = Template(body or self._fetch(url))
        if lacking := [name for name in template.types() if not types.find(name)]:
            if unknown := [name for name in lacking if not resources.schema(name)]:
                names = ", ".join(unknown)
                raise invalid(f"Template format error: Unrecognized resource types: [{names}]")
            text = "AWS has these types of resources, the local cloud does not:"
            raise NotImplementedError(f"{text} {', '.join(lacking)}")
        return template

    def _fetch(self, url: str) -> str:
        """Return an object of S3, addressed in one of AWS's ways or at the local cloud."""
        parts = urlsplit(url)
        path = unquote(parts.path).lstrip("/")
        if virtual := re.fullmatch(r"(.+)\.s3[.-].*amazonaws\.com", parts.netloc):
            path = f"{virtual[1]}/{path}"
        elif not re.match(r"s3[.-].*amazonaws\.com$|127\.0\.0\.1|localhost", parts.netloc):
            raise invalid("TemplateURL must be a supported URL.")
        bucket, _, key = path.partition("/")
        try:
            answer = self._caller(None)("s3", "GetObject", {"Bucket": bucket, "Key": key})
        except ClientError as problem:
            raise invalid(f"S3 error: {problem.response['Error']['Message']}") from None
        return answer["Body"].read().decode()

    def _wish(self, stack: Stack, old: Wish | None = None) -> Wish:
        """Return what a stack is asked to be, if it may be that."""
        if asked := [name for name in NOT_HERE.split() if self._get_param(name)]:
            raise NotImplementedError(f"{asked[0]} of a stack")
        template = self._template(stack if old else None)
        given = {
            one["ParameterKey"]: None if one.get("UsePreviousValue") else one.get("ParameterValue")
            for one in self._get_param("Parameters") or []
        }
        raw, values = parameters(template, given, old.raw if old else {}, stack.outside)
        values |= {"AWS::StackId": stack.id, "AWS::StackName": stack.name}
        values |= {"AWS::AccountId": ACCOUNT, "AWS::Region": self.region, "AWS::Partition": "aws"}
        values |= {"AWS::NotificationARNs": [], "AWS::URLSuffix": "amazonaws.com"}
        stack.secrets |= {raw[n] for n, p in template.parameters.items() if flag(p.get("NoEcho"))}
        stack.secrets.discard("")
        capabilities = self._get_param("Capabilities") or []
        if needed := _lacking(template, capabilities):
            code = "InsufficientCapabilitiesException"
            raise Refusal(code, f"Requires capabilities : [{needed}]")
        tags, role = self._get_param("Tags"), self._get_param("RoleARN")
        if tags is None:
            tags = pairs(old.tags if old else {})
        tags = {tag["Key"]: tag["Value"] for tag in tags}
        return Wish(template, raw, values, tags, capabilities, role or (old and old.role))

    def _new(self, name: str) -> Stack:
        if not re.fullmatch("[a-zA-Z][-a-zA-Z0-9]{0,127}", name):
            raise invalid(
                f"1 validation error detected: Value '{name}' at 'stackName' failed to satisfy "
                "constraint: Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
            )
        caller = self._caller(self._get_param("RoleARN"))
        return Stack(self.backend, name, self._arn("stack", name), caller)

    def _arn(self, kind: str, name: str) -> str:
        return f"arn:aws:cloudformation:{self.region}:{ACCOUNT}:{kind}/{name}/{uuid.uuid4()}"

    def _renew(self, stack: Stack, role: str | None = None) -> None:
        """Let the engine work in the name of who asks now."""
        stack.caller = self._caller(role or self._get_param("RoleARN") or stack.wish.role)

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
        found = [s.described() for s in reversed(self.backend.stacks.values())]
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
        stack = None
        if name := self._get_param("PhysicalResourceId"):
            for stack in self.backend.alive():
                if name in [one.physical for one in stack.resources.values()]:
                    break
            else:
                raise invalid(f"Stack for {name} does not exist")
        stack = stack or self._stack()
        shown = [stack.shown(one) for one in stack.resources.values()]
        return ActionResult({"StackResources": shown})

    def list_stack_resources(self):
        """Return the resources of a stack, deleted ones too if it is deleted."""
        stack = self._stack()
        shown = [stack.shown(one) for one in (stack.resources or stack.gone).values()]
        return ActionResult({"StackResourceSummaries": shown})

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


def _lacking(template: Template, given: list[str]) -> str:
    """Return the capability that a template needs and was not given, or nothing."""
    needed = ""
    for body in template.resources.values():
        if body["Type"].startswith("AWS::IAM::"):
            named = types.find(body["Type"]).name in (body.get("Properties") or {})
            needed = "CAPABILITY_NAMED_IAM" if named or "NAMED" in needed else "CAPABILITY_IAM"
    return "" if {"CAPABILITY_NAMED_IAM", needed} & set(given) else needed


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
    if needed := _lacking(template, []):
        names = ", ".join(n for n in template.types() if n.startswith("AWS::IAM::"))
        reason = f"The following resource(s) require capabilities: [{names}]"
        summary |= {"Capabilities": [needed], "CapabilitiesReason": reason}
    return summary


Backend._url_module = SimpleNamespace(
    url_bases=[r"https?://cloudformation\.(.+)\.amazonaws\.com"],
    url_paths={"{0}/$": Response.dispatch},
)
cloudformation_backends.backend = Backend
