"""IAM: policies that are read, AWS's own ones, and the simulator."""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace

from moto.core.responses import ActionResult
from moto.iam import models, policy_validation, urls
from moto.iam.exceptions import MalformedPolicyDocument, NotFoundException
from moto.iam.models import AWSManagedPolicy, IAMBackend, Role, iam_backends
from moto.iam.responses import IamResponse

from helpers.cloud import calls, policies
from helpers.cloud.calls import Call, Refusal
from helpers.cloud.environment import ACCOUNT, ROOT_KEY
from helpers.cloud.services import sts


class Backend(IAMBackend):
    """moto's IAM with AWS's managed policies, and with trust policies that are checked."""

    def __init__(self, region_name: str, account_id: str) -> None:
        """Begin without AWS's 1,500 policies: they take a second, and come when asked for."""
        super().__init__(region_name, account_id)
        del self.managed_policies

    @functools.cached_property
    def managed_policies(self) -> dict:
        """The account's managed policies, and AWS's."""
        read, text, place = json.JSONDecoder().raw_decode, models.aws_managed_policies_data, 0
        while (place := text.find('\n "', place + 1)) > 0:  # one after the other: it is 5 MB
            name, end = read(text, place + 2)
            data, place = read(text, end + 1)
            one = AWSManagedPolicy.from_data(name, self.account_id, self.region_name, data)
            self.aws_managed_policies.append(one)
        return {one.arn: one for one in self.aws_managed_policies}

    def create_role(self, role_name: str, assume_role_policy_document: str, *args, **kw) -> Role:
        """Make a role whose trust policy names somebody who exists."""
        _check_trust(assume_role_policy_document)
        return super().create_role(role_name, assume_role_policy_document, *args, **kw)

    def update_assume_role_policy(self, role_name: str, policy_document: str) -> None:
        """Set a trust policy that names somebody who exists."""
        _check_trust(policy_document)
        super().update_assume_role_policy(role_name, policy_document)

    def delete_role(self, role_name: str) -> None:
        """Delete a role, in whose place its id stands in other roles' trust policies."""
        role = self.get_role(role_name)
        super().delete_role(role_name)
        self._forget(role.arn, role.id)

    def delete_user(self, user_name: str) -> None:
        """Delete a user, in whose place its id stands in roles' trust policies."""
        user = self.get_user(user_name)
        super().delete_user(user_name)
        self._forget(user.arn, user.id)

    def _forget(self, arn: str, identity: str) -> None:
        for role in self.roles.values():
            document = role.assume_role_policy_document
            role.assume_role_policy_document = document.replace(f'"{arn}"', f'"{identity}"')


def _check_trust(document: str) -> None:
    policy_validation.IAMTrustPolicyDocumentValidator(document).validate()
    for statement in policies.listed(json.loads(document)["Statement"]):
        principal = statement.get("Principal", statement.get("NotPrincipal"))
        if not principal:
            raise MalformedPolicyDocument("Missing required field Principal")
        for kind, names in (
            principal if isinstance(principal, dict) else {"AWS": principal}
        ).items():
            for name in policies.listed(names):
                if not _exists(kind, name):
                    text = f'Invalid principal in policy: "{kind.upper()}":"{name}"'
                    raise MalformedPolicyDocument(text)


def _exists(kind: str, name: str) -> bool:
    if kind == "AWS" and name.startswith(f"arn:aws:iam::{ACCOUNT}:") and not name.endswith(":root"):
        what, _, path = name.split(":")[5].partition("/")
        return what in ("user", "role") and find(what, path.rsplit("/", 1)[-1]) == name
    if kind == "AWS":
        return name == "*" or name.isdecimal() or name.startswith("arn:aws:")
    return kind == "Federated" or (kind == "Service" and name.endswith(".amazonaws.com"))


class Validator(policy_validation.IAMPolicyDocumentValidator):
    """moto's check of a policy, and what it lets pass."""

    def validate(self) -> None:
        """Refuse what is not a policy of an identity."""
        super().validate()
        if any({"Principal", "NotPrincipal"} & one.keys() for one in self._statements):
            raise MalformedPolicyDocument("Policy document should not specify a principal.")


def _check_effect(statement: dict) -> None:
    assert statement["Effect"] in policy_validation.VALID_EFFECTS  # as it is written there


def find(kind: str, name: str) -> str | None:
    """Return the ARN of a user, group, role or instance profile, if there is one."""
    backend = iam_backends[ACCOUNT]["aws"]
    there = getattr(backend, f"{kind.replace('-', '_')}s", {}) if kind != "policy" else {}
    return next((one.arn for one in there.values() if one.name == name), None)


def roles_of(profile: str) -> list[str]:
    """Return the ARNs of the roles in an instance profile; none if there is no such profile."""
    there = iam_backends[ACCOUNT]["aws"].instance_profiles.values()
    return [role.arn for one in there if one.name == profile for role in one.roles]


def _document(policy: str | dict) -> dict:
    return json.loads(policy) if isinstance(policy, str) else policy


def documents(owner) -> dict[str, dict]:
    """Return the policies of a user (and its groups), a group or a role, by their names."""
    kind = type(owner).__name__.lower()
    found = {f"{kind}_{owner.name}_{name}": one for name, one in owner.policies.items()}
    for policy in owner.managed_policies.values():
        found[policy.name] = _default(policy)
    found = {name: _document(one) for name, one in found.items()}
    for group in iam_backends[ACCOUNT]["aws"].groups.values() if kind == "user" else []:
        if owner in group.users:
            found |= documents(group)
    return found


def _default(policy) -> str:
    versions = {one.version_id: one.document for one in policy.versions}
    return versions[policy.default_version_id]


def owned(key: str) -> dict[str, dict] | None:
    """Return the policies of a key's owner by their names; None for the root user, who has none."""
    if key == ROOT_KEY:
        return None
    backend = iam_backends[ACCOUNT]["aws"]
    if session := sts.session(key):
        there = [one for one in backend.roles.values() if one.arn == session.role_arn]
        return documents(there[0]) if there else {}
    owner = backend.get_user_from_access_key_id(key)
    return documents(owner) if owner else {}


def check(call: Call) -> None:
    """Refuse permissions boundaries: nothing would ask them."""
    names = [call.operation, *call.request.values]
    if call.service == "iam" and any("PermissionsBoundary" in name for name in names):
        raise NotImplementedError("there are no permissions boundaries")


class Response(IamResponse):
    """moto's IAM with the policy simulator."""

    def simulate_principal_policy(self) -> ActionResult:
        """Say what the policies of a user, group or role, and more of them, would decide."""
        arn = self._get_param("PolicySourceArn")
        there = [*self.backend.users.values(), *self.backend.groups.values()]
        owner = [one for one in [*there, *self.backend.roles.values()] if one.arn == arn]
        if not owner:
            raise NotFoundException(f"The entity {arn} cannot be found.")
        if self._get_param("ResourcePolicy"):
            raise NotImplementedError("only the policies of identities are simulated")
        own = documents(owner[0])
        for number, text in enumerate(self._get_param("PolicyInputList", []), 1):
            try:
                Validator(text).validate()
            except MalformedPolicyDocument as problem:
                raise Refusal("InvalidInput", f"Policy {number}: {problem.message}") from None
            own[f"PolicyInputList.{number}"] = _document(text)
        context = {}
        for one in self._get_param("ContextEntries", []):
            values = one.get("ContextKeyValues", [])
            single = len(values) == 1 and not one.get("ContextKeyType", "").endswith("List")
            context[one["ContextKeyName"].lower()] = values[0] if single else values
        results = [
            _decision(own, action, resource, context)
            for action in self._get_param("ActionNames")
            for resource in self._get_param("ResourceArns") or ["*"]
        ]
        return ActionResult({"EvaluationResults": results, "IsTruncated": False})


def _decision(own: dict, *facts) -> dict:
    said = policies.verdict(own.values(), *facts)
    matched = [
        {"SourcePolicyId": name, "SourcePolicyType": "IAM Policy"}
        for name, document in own.items()
        if said and policies.verdict([document], *facts) == said
    ]
    return {
        "EvalActionName": facts[0],
        "EvalResourceName": facts[1],
        "EvalDecision": {"Allow": "allowed", "Deny": "explicitDeny"}.get(said, "implicitDeny"),
        "MatchedStatements": matched,
        "MissingContextValues": [],
    }


Backend._url_module = SimpleNamespace(
    url_bases=urls.url_bases, url_paths={"{0}/$": Response.dispatch}
)
iam_backends.backend = Backend
calls.CHECKS.append(check)
models.IAMPolicyDocumentValidator = Validator
policy_validation.BaseIAMPolicyValidator._validate_version = lambda self: None  # it may be missing
policy_validation.IAMPolicyDocumentValidator._validate_effect_syntax = staticmethod(_check_effect)
