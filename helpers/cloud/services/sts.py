"""STS: who calls, and who may be which role for how long."""

from __future__ import annotations

import json

from moto.core.utils import utcnow
from moto.iam.models import iam_backends
from moto.sts import urls
from moto.sts.models import AssumedRole, STSBackend, sts_backends

from helpers.cloud import policies
from helpers.cloud.calls import Refusal
from helpers.cloud.environment import ACCOUNT, REGION, ROOT_KEY

# How a service says that it may not be a role.
CANNOT = {
    "cloudformation": ("ValidationError", "Role {role} is invalid or cannot be assumed"),
    "codebuild": (
        "InvalidInputException",
        "CodeBuild is not authorized to perform: sts:AssumeRole on service role",
    ),
    "codepipeline": (
        "InvalidStructureException",
        "CodePipeline is not authorized to perform AssumeRole on role {role}",
    ),
    "eks": (
        "InvalidParameterException",
        "Role with arn: {role}, could not be assumed because it does not exist or the trusted "
        "entity is not correct",
    ),
    "lambda": (
        "InvalidParameterValueException",
        "The role defined for the function cannot be assumed by Lambda.",
    ),
    "": (
        "AccessDenied",
        "User: {service} is not authorized to perform: sts:AssumeRole on resource: {role}",
    ),
}


class Backend(STSBackend):
    """moto's STS, which does not know the key that the course gives out."""

    _url_module = urls

    def get_caller_identity(self, access_key_id: str, region: str) -> tuple[str, str, str]:
        """Return user id, ARN and account of a key's owner."""
        if access_key_id == ROOT_KEY:
            return self.account_id, f"arn:aws:iam::{self.account_id}:root", self.account_id
        return super().get_caller_identity(access_key_id, region)

    def assume_role(self, **asked) -> AssumedRole:
        """Return a session of a role, no longer than the role allows (see ``permissions``)."""
        role = iam_backends[ACCOUNT]["aws"].get_role_by_arn(asked["role_arn"])
        if asked["duration"] > int(role.max_session_duration or 3600):
            text = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
            raise Refusal("ValidationError", text)
        return super().assume_role(**asked)

    def _not_here(self, *args, **kwargs) -> None:
        raise NotImplementedError("sessions are those of roles, by assume-role")

    get_session_token = get_federation_token = _not_here
    assume_role_with_web_identity = assume_role_with_saml = _not_here


sts_backends.backend = Backend


def session(key: str) -> AssumedRole | None:
    """Return the session of a role whose key this is, if it is one."""
    return sts_backends[ACCOUNT]["aws"].get_assumed_role_from_access_key(key)


def expired(key: str) -> bool:
    """Say whether a key is that of a session which is over."""
    found = session(key)
    return bool(found and found.expiration <= utcnow())


def trust(role_arn: str) -> list[dict]:
    """Return the trust policy of a role as one about a resource; none if there is no such role."""
    for role in iam_backends[ACCOUNT]["aws"].roles.values():
        if role.arn == role_arn:
            policy = role.assume_role_policy_document
            policy = json.loads(policy) if isinstance(policy, str) else policy
            said = policies.listed(policy.get("Statement"))
            return [policy | {"Statement": [one | {"Resource": "*"} for one in said]}]
    return []


def assume(role_arn: str, service: str, name: str = "") -> tuple[str, str, str]:
    """Return temporary credentials of a role for a service: key, secret and token.

    Args:
        role_arn: the role.
        service: who wants to be it: ``lambda.amazonaws.com``, or ``lambda`` for short.
        name: the session's name (for EC2 the instance's id); the service's if empty.

    Raises:
        Refusal: the role's trust policy does not name the service, or there is no such role.
    """
    service = service.removesuffix(".amazonaws.com")
    who = f"{service}.amazonaws.com"
    context = {"aws:sourceaccount": ACCOUNT, "aws:securetransport": "true"}
    facts = ("sts:AssumeRole", role_arn, context, {who})
    if policies.verdict(trust(role_arn), *facts) != "Allow":
        code, text = CANNOT.get(service) or CANNOT[""]
        raise Refusal(
            code, text.format(role=role_arn, service=who), 400 if service in CANNOT else 403
        )
    given = sts_backends[ACCOUNT]["aws"].assume_role(
        region_name=REGION,
        role_session_name=name or service,
        role_arn=role_arn,
        policy="",
        duration=3600,
        external_id="",
    )
    return given.access_key_id, given.secret_access_key, given.session_token


def caller(key: str) -> tuple[str, set[str], dict[str, str]]:
    """Return who a key stands for, for the evaluation of policies.

    Args:
        key: an access key id whose signature was found right, or ``anonymous``.

    Returns:
        Its ARN; the names by which a resource's policy may mean it; and what conditions ask.
    """
    context = {"aws:securetransport": "true", "aws:sourceip": "127.0.0.1"}
    context["aws:currenttime"] = f"{utcnow().isoformat(timespec='seconds')}Z"
    if key == "anonymous":
        return key, set(), context | {"aws:principaltype": "Anonymous"}
    user_id, arn, account = sts_backends[ACCOUNT]["aws"].get_caller_identity(key, REGION)
    names = {arn, account, f"arn:aws:iam::{account}:root"}
    context |= {"aws:principalarn": arn, "aws:principalaccount": account, "aws:userid": user_id}
    if found := session(key):
        names.add(found.role_arn)
        context |= {"aws:principalarn": found.role_arn, "aws:multifactorauthpresent": "false"}
    if ":user/" in arn:
        context["aws:username"] = arn.rsplit("/", 1)[1]
    return arn, names, context
