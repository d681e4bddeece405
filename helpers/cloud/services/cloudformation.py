"""CloudFormation: strict, with an engine that calls the cloud's own API (``helpers.cloud.stacks``).

moto's engine takes types it does not know, never rolls back and makes a second stack from a change
set, so that nothing of it is left here but the address.
"""

from __future__ import annotations

import functools
import re
import threading
import time
import uuid
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

from botocore.exceptions import ClientError
from moto.cloudformation.models import cloudformation_backends
from moto.core.base_backend import BaseBackend
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse

from helpers.cloud import signatures
from helpers.cloud.calls import Refusal
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import sts
from helpers.cloud.stacks import engine, resources, types
from helpers.cloud.stacks.api import Caller
from helpers.cloud.stacks.engine import Stack, Wish
from helpers.cloud.stacks.resources import Resource
from helpers.cloud.stacks.template import Template, invalid, parameters

WAITER = re.compile(r" m/([^ ]*,)?B\b")  # how a client says that one of its waiters asks
OVER = "DELETE_COMPLETE"
NO_CHANGE = (
    "The submitted information didn't contain changes. "
    "Submit different information to create a change set."
)
# How an EC2 thing is looked for that a parameter names: operation, its parameter.
THINGS = {
    "AWS::EC2::AvailabilityZone::Name": ("DescribeAvailabilityZones", "ZoneNames"),
    "AWS::EC2::Image::Id": ("DescribeImages", "ImageIds"),
    "AWS::EC2::Instance::Id": ("DescribeInstances", "InstanceIds"),
    "AWS::EC2::KeyPair::KeyName": ("DescribeKeyPairs", "KeyNames"),
    "AWS::EC2::SecurityGroup::GroupName": ("DescribeSecurityGroups", "GroupNames"),
    "AWS::EC2::SecurityGroup::Id": ("DescribeSecurityGroups", "GroupIds"),
    "AWS::EC2::Subnet::Id": ("DescribeSubnets", "SubnetIds"),
    "AWS::EC2::Volume::Id": ("DescribeVolumes", "VolumeIds"),
    "AWS::EC2::VPC::Id": ("DescribeVpcs", "VpcIds"),
}


class Backend(BaseBackend):
    """The stacks of a region, by id; one request at a time decides what happens to them."""

    def __init__(self, region_name: str, account_id: str) -> None:
        """Have no stacks."""
        super().__init__(region_name, account_id)
        self.stacks: dict[str, Stack] = {}
        self.lock = threading.RLock()

    def find(self, name: str) -> Stack | None:
        """Return a stack by id, or by name if it is not deleted."""
        alive = (s for s in self.stacks.values() if s.name == name and s.status != OVER)
        return self.stacks.get(name) or next(alive, None)

    def stack(self, name: str) -> Stack:
        """Return a stack, or refuse as AWS does."""
        if found := self.find(name):
            return found
        raise invalid(f"Stack with id {name} does not exist")

    def exports(self) -> dict[str, tuple[str, Stack]]:
        """Return value and stack of each exported name."""
        return {
            output["ExportName"]: (output["OutputValue"], stack)
            for stack in self.stacks.values()
            for output in stack.outputs
            if "ExportName" in output and not stack.status.startswith("CREATE_IN")
        }

    def importers(self, export: str) -> list[str]:
        """Return the names of the stacks that use an export."""
        return [s.name for s in self.stacks.values() if export in s.imports and s.status != OVER]


def outside(backend: Backend, call: Caller, name: str, value):
    """Return what a template takes from elsewhere (see ``stacks.template.Scope``)."""
    exports = backend.exports()
    if name == "Fn::ImportValue":
        if value not in exports:
            raise invalid(f"No export named {value} found.")
        return exports[value][0]
    if name == "export":
        export, stack = value
        if export in exports and exports[export][1] is not stack:
            other = exports[export][1].name
            raise invalid(f"Export with name {export} is already exported by stack {other}.")
    if name == "Fn::GetAZs":
        zones = call("ec2", "DescribeAvailabilityZones", {})["AvailabilityZones"]
        return [zone["ZoneName"] for zone in zones]
    if name in ("ssm", "AWS::SSM::Parameter::Value", "AWS::SSM::Parameter::Name"):
        try:
            return call("ssm", "GetParameter", {"Name": value})["Parameter"]["Value"]
        except ClientError as problem:
            if problem.response["Error"]["Code"] != "ParameterNotFound":
                raise _refused(problem) from None
            text = f"Unable to fetch parameters [{value}] from parameter store for this account."
            raise invalid(text) from None
    if name in THINGS:
        operation, key = THINGS[name]
        try:
            call("ec2", operation, {key: value})
        except ClientError as problem:
            if "Unauthorized" in problem.response["Error"]["Code"]:
                raise _refused(problem) from None
            raise LookupError(value) from None
    return value


def _refused(problem: ClientError) -> Refusal:
    error = problem.response["Error"]
    return invalid(f"{error['Code']}: {error['Message']}")


def _serialized(method):
    """Let requests that change stacks wait for each other."""

    @functools.wraps(method)
    def wrapped(self):
        with self.backend.lock:
            return method(self)

    return wrapped


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

    # --- What a request says

    def _caller(self, role: str | None) -> Caller:
        if role:
            try:
                return Caller(*sts.assume(role, "cloudformation.amazonaws.com"), self.region)
            except ServiceException:
                raise invalid(f"Role {role} is invalid or cannot be assumed") from None
        found = signatures._credentials(self.access_key)
        return Caller(found.access_key, found.secret_key, found.token, self.region)

    def _template(self, stack: Stack | None = None) -> Template:
        body, url = self._get_param("TemplateBody"), self._get_param("TemplateURL")
        if stack and self._get_param("UsePreviousTemplate"):
            return stack.wish.template
        if not (body or url):
            raise invalid("Either Template URL or Template Body must be specified.")
        if url:
            body = self._fetch(url)
        elif len(body) > 51200:
            raise invalid(
                "1 validation error detected: Value at 'templateBody' failed to satisfy "
                "constraint: Member must have length less than or equal to 51200"
            )
        return Template(body)

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

    def _wish(self, template: Template, stack: Stack, previous: dict[str, str]) -> Wish:
        """Return what a stack is asked to be, if it may be that."""
        for name in ("NotificationARNs", "RollbackConfiguration", "StackPolicyBody"):
            if self._get_param(name):
                raise NotImplementedError(f"{name} of a stack")
        self._check_types(template)
        given = {
            one["ParameterKey"]: None if one.get("UsePreviousValue") else one.get("ParameterValue")
            for one in self._get_param("Parameters") or []
        }
        raw, values = parameters(template, given, previous, stack.outside)
        values |= {
            "AWS::AccountId": ACCOUNT,
            "AWS::NotificationARNs": [],
            "AWS::Partition": "aws",
            "AWS::Region": self.region,
            "AWS::StackId": stack.id,
            "AWS::StackName": stack.name,
            "AWS::URLSuffix": "amazonaws.com",
        }
        capabilities = self._get_param("Capabilities") or []
        if needed := _lacking(template, capabilities):
            code = "InsufficientCapabilitiesException"
            raise Refusal(code, f"Requires capabilities : [{needed}]")
        tags = self._get_param("Tags")
        tags = stack.tags if tags is None else {tag["Key"]: tag["Value"] for tag in tags}
        role = self._get_param("RoleARN") or (stack.wish.role if stack.status else None)
        return Wish(template, raw, values, tags, capabilities, role)

    def _check_types(self, template: Template) -> None:
        unknown = [
            name for name in template.types() if not types.find(name) and not resources.schema(name)
        ]
        if unknown:
            names = ", ".join(unknown)
            raise invalid(f"Template format error: Unrecognized resource types: [{names}]")
        if lacking := [name for name in template.types() if not types.find(name)]:
            raise NotImplementedError(
                f"AWS has these types of resources, the local cloud does not: {', '.join(lacking)}"
            )

    def _new(self, name: str) -> Stack:
        if not re.fullmatch("[a-zA-Z][-a-zA-Z0-9]{0,127}", name):
            raise invalid(
                f"1 validation error detected: Value '{name}' at 'stackName' failed to satisfy "
                "constraint: Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
            )
        arn = f"arn:aws:cloudformation:{self.region}:{ACCOUNT}:stack/{name}/{uuid.uuid4()}"
        caller = self._caller(self._get_param("RoleARN"))
        ask = functools.partial(outside, self.backend, caller)
        stack = Stack(name, arn, self.region, None, caller, ask)
        stack.token = self._get_param("ClientRequestToken")
        return stack

    def _renew(self, stack: Stack, role: str | None) -> None:
        """Let the engine work in the name of who asks now."""
        stack.caller = self._caller(role)
        stack.outside = functools.partial(outside, self.backend, stack.caller)
        stack.token = self._get_param("ClientRequestToken")

    # --- Stacks

    @_serialized
    def create_stack(self):
        """Start to create a stack."""
        name = self._get_param("StackName")
        if self.backend.find(name):
            raise Refusal("AlreadyExistsException", f"Stack [{name}] already exists")
        stack = self._new(name)
        stack.wish = self._wish(self._template(), stack, {})
        stack.on_failure = self._get_param("OnFailure") or "ROLLBACK"
        if self._get_param("DisableRollback"):
            stack.on_failure = "DO_NOTHING"
        stack.protected = bool(self._get_param("EnableTerminationProtection"))
        if minutes := self._get_param("TimeoutInMinutes"):
            stack.deadline = time.monotonic() + 60 * minutes
        engine.check(stack, stack.wish)
        self.backend.stacks[stack.id] = stack
        stack.event(None, "CREATE_IN_PROGRESS", "User Initiated")
        engine.run(engine.create, stack)
        return ActionResult({"StackId": stack.id})

    def _changeable(self, stack: Stack) -> None:
        good = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_FAILED")
        if stack.status not in good:
            text = f"Stack:{stack.id} is in {stack.status} state and can not be updated."
            raise invalid(text)

    @_serialized
    def update_stack(self):
        """Start to update a stack."""
        stack = self.backend.stack(self._get_param("StackName"))
        self._changeable(stack)
        self._renew(stack, self._get_param("RoleARN") or stack.wish.role)
        wish = self._wish(self._template(stack), stack, stack.wish.raw)
        if not self._changes(stack, wish):
            raise invalid("No updates are to be performed.")
        self._start_update(stack, wish, not self._get_param("DisableRollback"))
        return ActionResult({"StackId": stack.id})

    def _start_update(self, stack: Stack, wish: Wish, rollback: bool) -> None:
        stack.updated, stack.deadline = engine.now(), float("inf")
        stack.event(None, "UPDATE_IN_PROGRESS", "User Initiated")
        engine.run(engine.update, stack, wish, rollback)

    def _changes(self, stack: Stack, wish: Wish) -> list[dict] | bool:
        """Return what would change among the resources; True if only something else does."""
        old, new = stack.wish.template, wish.template
        moved = [
            name
            for name, body in new.resources.items()
            if name in stack.resources and stack.resources[name].type != body["Type"]
        ]
        if moved:
            raise invalid(
                "Update of resource type is not permitted. The new template modifies resource "
                f"type of the following resources: [{', '.join(moved)}]"
            )
        for export in _lost(old, new, stack):
            if users := self.backend.importers(export):
                text = f"Export {export} cannot be deleted as it is in use by {', '.join(users)}"
                raise invalid(text)
        imports = set(stack.imports)
        tags, stack.tags = stack.tags, wish.tags
        try:
            found = engine.check(stack, wish)
        finally:
            stack.imports, stack.tags = imports, tags
        return found or old.outputs != new.outputs or stack.tags != wish.tags

    @_serialized
    def delete_stack(self):
        """Start to delete a stack; that there is none is no error."""
        stack = self.backend.find(self._get_param("StackName"))
        if not stack or stack.status == OVER:
            return ActionResult({})
        if stack.protected:
            raise invalid(
                f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled"
            )
        for output in stack.outputs:
            if users := self.backend.importers(output.get("ExportName", "")):
                raise invalid(
                    f"Export {output['ExportName']} cannot be deleted as it is in use by "
                    f"{', '.join(users)}"
                )
        stack.retain = self._get_param("RetainResources") or []
        if stack.retain and stack.status != "DELETE_FAILED":
            raise invalid(
                f"Invalid operation on stack [{stack.id}]. "
                "Specify resources to retain only when deleting a stack in DELETE_FAILED state."
            )
        if stack.status == "DELETE_IN_PROGRESS":
            return ActionResult({})
        with stack.lock:
            creating = stack.status == "CREATE_IN_PROGRESS"
            busy = stack.status.endswith("_IN_PROGRESS") and stack.status != "REVIEW_IN_PROGRESS"
            if busy and not creating:
                text = f"Stack [{stack.name}] cannot be deleted while in status {stack.status}"
                raise invalid(text)
            self._renew(stack, self._get_param("RoleARN") or stack.wish.role)
            stack.stopping = creating
            stack.event(None, "DELETE_IN_PROGRESS", "User Initiated")
        if not creating:
            engine.run(engine.delete, stack)
        return ActionResult({})

    def update_termination_protection(self):
        """Set whether a stack can be deleted."""
        stack = self.backend.stack(self._get_param("StackName"))
        stack.protected = bool(self._get_param("EnableTerminationProtection"))
        return ActionResult({"StackId": stack.id})

    def describe_stacks(self):
        """Return one stack, or all that are not deleted."""
        name = self._get_param("StackName")
        if name and WAITER.search(self.headers.get("User-Agent", "")):
            self._await(self.backend.stack(name))
        alive = [s for s in self.backend.stacks.values() if s.status != OVER]
        found = [self.backend.stack(name)] if name else alive[::-1]
        return ActionResult({"Stacks": [_described(stack) for stack in found]})

    def _await(self, stack: Stack) -> None:
        """Let a waiter have its answer when there is one: ``deploy`` would ask again after 30 s."""
        end = time.monotonic() + 20
        while stack.status.endswith("_IN_PROGRESS") and time.monotonic() < end:
            if stack.status == "REVIEW_IN_PROGRESS":
                return
            time.sleep(0.05)

    def list_stacks(self):
        """Return a summary of all stacks, deleted ones too."""
        wanted = self._get_param("StackStatusFilter")
        found = reversed(self.backend.stacks.values())
        summaries = [_described(s) for s in found if not wanted or s.status in wanted]
        return ActionResult({"StackSummaries": summaries})

    def describe_stack_events(self):
        """Return what happened, newest first."""
        stack = self.backend.stack(self._get_param("StackName"))
        return ActionResult({"StackEvents": stack.events[::-1]})

    def _resource(self) -> tuple[Stack, Resource]:
        stack, name = self.backend.stack(self._get_param("StackName")), ""
        name = self._get_param("LogicalResourceId")
        found = stack.resources.get(name) or stack.gone.get(name)
        if not found:
            raise invalid(f"Resource {name} does not exist for stack {stack.name}")
        return stack, found

    def describe_stack_resource(self):
        """Return one resource."""
        return ActionResult({"StackResourceDetail": _shown(*self._resource())})

    def describe_stack_resources(self):
        """Return the resources of a stack, or one."""
        if name := self._get_param("PhysicalResourceId"):
            for stack in self.backend.stacks.values():
                if any(one.physical == name for one in stack.resources.values()):
                    break
            else:
                raise invalid(f"Stack for {name} does not exist")
        else:
            stack = self.backend.stack(self._get_param("StackName"))
        found = [*stack.resources.values()]
        if self._get_param("LogicalResourceId"):
            found = [self._resource()[1]]
        return ActionResult({"StackResources": [_shown(stack, one) for one in found]})

    def list_stack_resources(self):
        """Return the resources of a stack, deleted ones too if it is deleted."""
        stack = self.backend.stack(self._get_param("StackName"))
        found = stack.resources or stack.gone
        summaries = [_shown(stack, one) for one in found.values()]
        return ActionResult({"StackResourceSummaries": summaries})

    # --- Templates and exports

    def get_template(self):
        """Return a template as it was given."""
        wish = self.backend.stack(self._get_param("StackName")).wish
        if name := self._get_param("ChangeSetName"):
            wish = self._change_set(name)[1]["wish"]
        return ActionResult({"TemplateBody": wish.template.text, "StagesAvailable": ["Original"]})

    def get_template_summary(self):
        """Return what a template declares."""
        name = self._get_param("StackName")
        template = self.backend.stack(name).wish.template if name else self._template()
        return ActionResult(_summary(template) | {"ResourceTypes": template.types()})

    def validate_template(self):
        """Return what a template declares, if it is well formed."""
        template = self._template()
        self._check_types(template)
        return ActionResult(_summary(template))

    def list_exports(self):
        """Return what stacks export."""
        found = self.backend.exports().items()
        exports = [
            {"Name": name, "Value": value, "ExportingStackId": stack.id}
            for name, (value, stack) in found
        ]
        return ActionResult({"Exports": exports})

    def list_imports(self):
        """Return which stacks use an export."""
        name = self._get_param("ExportName")
        if name not in self.backend.exports():
            raise invalid(f"No export named {name} found.")
        if users := self.backend.importers(name):
            return ActionResult({"Imports": users})
        raise invalid(f"Export '{name}' is not imported by any stack.")

    # --- Change sets

    @_serialized
    def create_change_set(self):
        """Find out what would change, and keep it to be executed."""
        name, kind = self._get_param("StackName"), self._get_param("ChangeSetType") or "UPDATE"
        if kind == "IMPORT":
            raise NotImplementedError("change sets that import resources")
        stack = self.backend.find(name)
        if kind == "CREATE":
            if stack and stack.status != "REVIEW_IN_PROGRESS":
                text = f"Stack [{name}] already exists and cannot be created again with the "
                raise invalid(f"{text}changeSet [{self._get_param('ChangeSetName')}].")
            fresh, stack = not stack, stack or self._new(name)
        else:
            stack, fresh = self.backend.stack(name), False
            self._changeable(stack)
            self._renew(stack, self._get_param("RoleARN") or stack.wish.role)
        label = self._get_param("ChangeSetName")
        if label in stack.change_sets:
            text = f"ChangeSet {label} already exists"
            raise Refusal("AlreadyExistsException", text)
        old = stack if kind == "UPDATE" else None
        wish = self._wish(self._template(old), stack, stack.wish.raw if old else {})
        if stack.wish is None:
            stack.wish = wish
        changes = engine.check(stack, wish) if kind == "CREATE" else self._changes(stack, wish)
        if fresh:
            self.backend.stacks[stack.id] = stack
            stack.event(None, "REVIEW_IN_PROGRESS", "User Initiated")
        arn = f"arn:aws:cloudformation:{self.region}:{ACCOUNT}:changeSet/{label}/{uuid.uuid4()}"
        stack.change_sets[label] = {
            "ChangeSetName": label,
            "ChangeSetId": arn,
            "StackId": stack.id,
            "StackName": stack.name,
            "Description": self._get_param("Description"),
            "CreationTime": engine.now(),
            "Status": "CREATE_COMPLETE" if changes else "FAILED",
            "StatusReason": None if changes else NO_CHANGE,
            "ExecutionStatus": "AVAILABLE" if changes else "UNAVAILABLE",
            "Capabilities": wish.capabilities,
            "Parameters": _parameters(wish),
            "Tags": _tags(wish.tags),
            "Changes": [
                {"Type": "Resource", "ResourceChange": one}
                for one in (changes if isinstance(changes, list) else [])
            ],
            "kind": kind,
            "wish": wish,
            "on_failure": self._get_param("OnStackFailure") or "ROLLBACK",
        }
        return ActionResult({"Id": arn, "StackId": stack.id})

    def _change_set(self, name: str) -> tuple[Stack, dict]:
        owner = self._get_param("StackName")
        stacks = [self.backend.stack(owner)] if owner else list(self.backend.stacks.values())
        for stack in stacks:
            for label, one in stack.change_sets.items():
                if name in (label, one["ChangeSetId"]):
                    return stack, one
        raise Refusal("ChangeSetNotFound", f"ChangeSet [{name}] does not exist", 404)

    def describe_change_set(self):
        """Return what would change."""
        return ActionResult(self._change_set(self._get_param("ChangeSetName"))[1])

    def list_change_sets(self):
        """Return the change sets of a stack."""
        stack = self.backend.stack(self._get_param("StackName"))
        return ActionResult({"Summaries": list(stack.change_sets.values())})

    @_serialized
    def delete_change_set(self):
        """Forget a change set."""
        stack, one = self._change_set(self._get_param("ChangeSetName"))
        del stack.change_sets[one["ChangeSetName"]]
        return ActionResult({})

    @_serialized
    def execute_change_set(self):
        """Start to do what a change set says. It works once, and only on what it was made for."""
        stack, one = self._change_set(self._get_param("ChangeSetName"))
        if one["ExecutionStatus"] != "AVAILABLE":
            raise Refusal(
                "InvalidChangeSetStatus",
                f"ChangeSet [{one['ChangeSetId']}] cannot be executed in its current status of "
                f"[{one['Status']}]",
            )
        creating = one["kind"] == "CREATE"
        if not creating:
            self._changeable(stack)
        self._renew(stack, one["wish"].role)
        stack.change_sets.clear()
        off = self._get_param("DisableRollback")
        if creating:
            stack.wish = one["wish"]
            stack.on_failure = "DO_NOTHING" if off else one["on_failure"]
            stack.event(None, "CREATE_IN_PROGRESS", "User Initiated")
            engine.run(engine.create, stack)
        else:
            self._start_update(stack, one["wish"], not off)
        return ActionResult({})


def _lacking(template: Template, given: list[str]) -> str:
    """Return the capability that a template needs and was not given, or nothing."""
    needed = ""
    for body in template.resources.values():
        if body["Type"].startswith("AWS::IAM::"):
            needed = needed or "CAPABILITY_IAM"
            kind = types.find(body["Type"])
            if kind and kind.name and kind.name in (body.get("Properties") or {}):
                needed = "CAPABILITY_NAMED_IAM"
    enough = {"CAPABILITY_NAMED_IAM"} | ({"CAPABILITY_IAM"} & {needed})
    return "" if enough & set(given) else needed


def _lost(old: Template, new: Template, stack: Stack) -> list[str]:
    """Return the exports that a stack would no longer have."""
    return [
        output["ExportName"]
        for output in stack.outputs
        if "ExportName" in output
        and (
            output["OutputKey"] not in new.outputs
            or new.outputs[output["OutputKey"]].get("Export")
            != old.outputs[output["OutputKey"]].get("Export")
        )
    ]


def _tags(tags: dict[str, str]) -> list[dict]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _parameters(wish: Wish) -> list[dict]:
    found = []
    for name, value in wish.raw.items():
        declared = wish.template.parameters[name]
        hidden = str(declared.get("NoEcho")).lower() == "true"
        one = {"ParameterKey": name, "ParameterValue": "****" if hidden else value}
        if declared["Type"].startswith("AWS::SSM::Parameter::Value"):
            resolved = wish.values[name]
            one["ResolvedValue"] = ",".join(resolved) if isinstance(resolved, list) else resolved
        found.append(one)
    return found


def _described(stack: Stack) -> dict:
    return {
        "StackId": stack.id,
        "StackName": stack.name,
        "Description": stack.wish.template.body.get("Description"),
        "TemplateDescription": stack.wish.template.body.get("Description"),
        "Parameters": _parameters(stack.wish),
        "CreationTime": stack.created,
        "LastUpdatedTime": stack.updated,
        "DeletionTime": stack.deleted,
        "StackStatus": stack.status,
        "StackStatusReason": stack.reason or None,
        "DisableRollback": stack.on_failure == "DO_NOTHING",
        "EnableTerminationProtection": stack.protected,
        "Capabilities": stack.wish.capabilities,
        "Outputs": stack.outputs,
        "RoleARN": stack.wish.role,
        "Tags": _tags(stack.wish.tags),
        "NotificationARNs": [],
        "DriftInformation": {"StackDriftStatus": "NOT_CHECKED"},
    }


def _shown(stack: Stack, one: Resource) -> dict:
    return {
        "StackId": stack.id,
        "StackName": stack.name,
        "LogicalResourceId": one.name,
        "PhysicalResourceId": one.physical or None,
        "ResourceType": one.type,
        "Timestamp": one.time,
        "LastUpdatedTimestamp": one.time,
        "ResourceStatus": one.status,
        "ResourceStatusReason": one.reason or None,
        "DriftInformation": {"StackResourceDriftStatus": "NOT_CHECKED"},
    }


def _summary(template: Template) -> dict:
    found = []
    for name, one in template.parameters.items():
        default = one.get("Default")
        found.append(
            {
                "ParameterKey": name,
                "DefaultValue": None if default is None else str(default),
                "ParameterType": one["Type"],
                "NoEcho": str(one.get("NoEcho")).lower() == "true",
                "Description": one.get("Description"),
                "ParameterConstraints": {
                    "AllowedValues": [str(value) for value in one.get("AllowedValues", [])]
                },
            }
        )
    summary = {"Description": template.body.get("Description"), "Parameters": found}
    if needed := _lacking(template, []):
        names = [n for n in template.types() if n.startswith("AWS::IAM::")]
        summary["Capabilities"] = [needed]
        reason = f"The following resource(s) require capabilities: [{', '.join(names)}]"
        summary["CapabilitiesReason"] = reason
    return summary


Backend._url_module = SimpleNamespace(
    url_bases=[r"https?://cloudformation\.(.+)\.amazonaws\.com"],
    url_paths={"{0}/$": Response.dispatch},
)
cloudformation_backends.backend = Backend
