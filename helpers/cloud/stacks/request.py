"""What a request to CloudFormation says: its template, parameters, and in whose name it asks."""

from __future__ import annotations

import functools
import re
import uuid
from urllib.parse import unquote, urlsplit

from botocore.exceptions import ClientError
from moto.cloudformation.models import cloudformation_backends
from moto.core.responses import BaseResponse

from helpers.cloud import signatures
from helpers.cloud.calls import Refusal
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import sts
from helpers.cloud.stacks import resources, types
from helpers.cloud.stacks.api import Caller
from helpers.cloud.stacks.parameters import parameters
from helpers.cloud.stacks.stack import Backend, Stack, Wish, pairs
from helpers.cloud.stacks.template import Template, flag, invalid

NOT_HERE = (
    "NotificationARNs RollbackConfiguration StackPolicyBody EnableTerminationProtection "
    "TimeoutInMinutes"
)


class Asked(BaseResponse):
    """A request, and what it says."""

    def __init__(self) -> None:
        """Read parameters as botocore describes them."""
        super().__init__(service_name="cloudformation")
        self.automated_parameter_parsing = True

    @property
    def backend(self) -> Backend:
        """The stacks of the region that was asked."""
        return cloudformation_backends[self.current_account][self.region]

    def _stack(self) -> Stack:
        return self.backend.stack(self._get_param("StackName"))

    def _caller(self, role: str | None) -> Caller:
        if role:
            return Caller(*sts.assume(role, "cloudformation"), self.region)
        found = signatures.credentials_of(self.access_key)
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
        if absent := [name for name in template.types() if not types.find(name)]:
            if unknown := [name for name in absent if not resources.schema(name)]:
                names = ", ".join(unknown)
                raise invalid(f"Template format error: Unrecognized resource types: [{names}]")
            text = "AWS has these types of resources, the local cloud does not:"
            raise NotImplementedError(f"{text} {', '.join(absent)}")
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
        stored = functools.partial(stack.outside, "ssm")
        raw, values = parameters(template, given, old.raw if old else {}, stored)
        values |= {"AWS::StackId": stack.id, "AWS::StackName": stack.name}
        values |= {"AWS::AccountId": ACCOUNT, "AWS::Region": self.region, "AWS::Partition": "aws"}
        values |= {"AWS::NotificationARNs": [], "AWS::URLSuffix": "amazonaws.com"}
        hidden = {raw[n] for n, p in template.parameters.items() if flag(p.get("NoEcho"))} - {""}
        stack.secrets = stack.secrets | hidden  # not in place: the engine may read them now
        capabilities = self._get_param("Capabilities") or []
        if needed := lacking(template, capabilities):
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


def lacking(template: Template, given: list[str]) -> str:
    """Return the capability that a template needs and was not given, or nothing."""
    needed = ""
    for body in template.resources.values():
        if body["Type"].startswith("AWS::IAM::"):
            named = types.find(body["Type"]).name in (body.get("Properties") or {})
            needed = "CAPABILITY_NAMED_IAM" if named or "NAMED" in needed else "CAPABILITY_IAM"
    return "" if {"CAPABILITY_NAMED_IAM", needed} & set(given) else needed
