"""STS: the identity that a learner begins with is the root user of the account."""

from __future__ import annotations

from moto.sts import urls
from moto.sts.models import STSBackend, sts_backends

from helpers.cloud.environment import ACCOUNT, REGION, ROOT_KEY


class Backend(STSBackend):
    """moto's STS, which does not know the key that the course gives out."""

    _url_module = urls

    def get_caller_identity(self, access_key_id: str, region: str) -> tuple[str, str, str]:
        """Return user id, ARN and account of a key's owner."""
        if access_key_id == ROOT_KEY:
            return self.account_id, f"arn:aws:iam::{self.account_id}:root", self.account_id
        return super().get_caller_identity(access_key_id, region)


sts_backends.backend = Backend


def caller(key: str) -> tuple[str, set[str], dict[str, str]]:
    """Return who a key stands for, for the evaluation of policies.

    Args:
        key: an access key id whose signature was found right, or ``anonymous``.

    Returns:
        Its ARN; the names by which a resource's policy may mean it; and what conditions ask.
    """
    context = {"aws:securetransport": "true", "aws:sourceip": "127.0.0.1"}
    if key == "anonymous":
        return key, set(), context | {"aws:principaltype": "Anonymous"}
    user_id, arn, account = sts_backends[ACCOUNT]["aws"].get_caller_identity(key, REGION)
    names = {arn, account, f"arn:aws:iam::{account}:root"}
    if session := sts_backends[ACCOUNT]["aws"].get_assumed_role_from_access_key(key):
        names.add(session.role_arn)
    context |= {"aws:principalarn": arn, "aws:principalaccount": account, "aws:userid": user_id}
    if ":user/" in arn:
        context["aws:username"] = arn.rsplit("/", 1)[1]
    return arn, names, context


def assume(role_arn: str, service: str) -> tuple[str, str, str]:
    """Return temporary credentials of a role for a service of AWS: key, secret and token.

    Args:
        role_arn: the role.
        service: who acts in it, as a trust policy names it (``lambda.amazonaws.com``).
    """
    session = sts_backends[ACCOUNT]["aws"].assume_role(
        region_name=REGION,
        role_session_name=service.split(".")[0],
        role_arn=role_arn,
        policy=None,
        duration=3600,
        external_id=None,
    )
    return session.access_key_id, session.secret_access_key, session.session_token
