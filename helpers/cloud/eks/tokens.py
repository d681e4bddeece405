"""Who knocks at an EKS cluster: AWS's signed tokens, and the users of Kubernetes that they mean.

The API server asks at a door of the local cloud whose token it has got. A token is the URL of a
call ``sts get-caller-identity`` that somebody has signed but not made: whoever can sign it is that
user or role. Who that is in the cluster says an access entry, or else its ConfigMap aws-auth.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import json
import os
import re
from urllib.parse import parse_qs, urlsplit

import yaml
from moto.core.request import Request
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response

from helpers.cloud import permissions, signatures
from helpers.cloud.calls import Call, Refusal
from helpers.cloud.ecr import registry
from helpers.cloud.eks import entries
from helpers.cloud.environment import ACCOUNT
from helpers.cluster.api import ApiError

DOOR = "/_eks/"
PREFIX = "k8s-aws-v1."
LIFETIME = 15 * 60  # seconds that a token is good for, whatever its URL says
SIGNED = "Algorithm Credential Date Expires Security-Token SignedHeaders Signature".split()
WORDS = {"Action", "Version", *(f"X-Amz-{word}" for word in SIGNED)}  # no others in a token
AWS_AUTH = "/api/v1/namespaces/kube-system/configmaps"


def door(environ, start_response):
    """Answer an API server that asks whose token it has got (a WSGI application).

    And a node that asks how it logs in to the registry of an image.
    """
    from helpers.cloud.services import eks

    request = Request(environ)
    region, name, secret, *node = f"{request.path.removeprefix(DOOR)}///".split("/")
    cluster = eks.find(region, name)
    if not cluster or not hmac.compare_digest(secret.encode(), cluster.secret.encode()):
        return Response(status=403)(environ, start_response)
    review = json.loads(request.get_data())
    if review["kind"] == "CredentialProviderRequest":
        return Response(json.dumps(_login(cluster, *node[:2])))(environ, start_response)
    try:
        status = {"authenticated": True, "user": whose(cluster, review["spec"]["token"])}
    except (Refusal, ApiError) as problem:
        status = {"authenticated": False, "error": str(problem)}
    answer = {"apiVersion": review["apiVersion"], "kind": "TokenReview", "status": status}
    return Response(json.dumps(answer), content_type="application/json")(environ, start_response)


def _login(cluster, group: str, instance: str) -> dict:
    """Return how a node logs in to ECR as its role, in the form that the kubelet wants."""
    from helpers.cloud.services import sts

    answer = {"kind": "CredentialProviderResponse", "auth": {}}
    with contextlib.suppress(Refusal):  # the pull then says that there are no credentials
        key, *_ = sts.assume(cluster.groups[group].facts["nodeRole"], "ec2", instance)
        permissions.require(key, "ecr:GetAuthorizationToken", "*")
        password, _ = registry.token(key, cluster.region)
        login, host = {"username": "AWS", "password": password}, registry.host()
        on_aws = f"{ACCOUNT}.dkr.ecr.{cluster.region}.amazonaws.com"
        answer["auth"] = {host: login, on_aws: login | {"mirror": host}}
    return answer


def whose(cluster, token: str) -> dict:
    """Return who a token stands for in a cluster: name and groups, as a TokenReview has them.

    Raises:
        Refusal: it is none, not signed by its key for this cluster, too old, or not mapped.
    """
    call = _read(token, cluster.name)
    signatures.check(call, LIFETIME)
    from helpers.cloud.services import sts

    arn, _, context = sts.caller(call.key)
    principal = context["aws:principalarn"]
    session = arn.rsplit("/", 1)[1] if ":assumed-role/" in arn else ""
    if found := cluster.entries.get(principal):
        entries.bind(cluster, found)
        name, groups = found.facts["username"], found.groups
    else:
        name, groups = _mapped(cluster, principal)
    node = cluster.node_named(session)
    if "{{EC2PrivateDNSName}}" in name and not node:
        raise Refusal("Unauthorized", f"{arn} is no node of the cluster")
    facts = {
        "{{SessionName}}": session.replace("@", "-"),
        "{{SessionNameRaw}}": session,
        "{{AccountID}}": ACCOUNT,
        "{{EC2PrivateDNSName}}": node,
    }

    def filled(text: str) -> str:
        return re.sub("{{.*?}}", lambda found: facts.get(found[0], found[0]), text)

    return {
        "username": filled(name),
        "groups": [filled(one) for one in groups],
        "extra": {"arn": [arn]},
    }


def _mapped(cluster, principal: str) -> tuple[str, list[str]]:
    """Return what aws-auth makes of a user or role; it knows roles without their path."""
    kind = "role" if ":role/" in principal else "user"
    name = principal.rsplit("/", 1)[-1]
    wanted = f"arn:aws:iam::{ACCOUNT}:role/{name}" if kind == "role" else principal
    text = "" if cluster.mode == "API" else _aws_auth(cluster).get(f"map{kind.title()}s", "")
    try:
        for one in yaml.safe_load(text) or []:
            if str(one[f"{kind}arn"]).lower() == wanted.lower():
                return one.get("username") or wanted, one.get("groups") or []
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as problem:
        raise Refusal("Unauthorized", f"aws-auth cannot be read: {problem!r}") from None
    raise Refusal("Unauthorized", f"ARN is not mapped: {principal}")


def admit_nodes(cluster, role: str) -> None:
    """Let the nodes of a role in, by an access entry or, where those are off, by aws-auth."""
    if cluster.mode != "CONFIG_MAP":
        if role not in cluster.entries:
            entries.make(cluster, role, "EC2_LINUX")
        return
    data = _aws_auth(cluster)
    known = yaml.safe_load(data.get("mapRoles", "")) or []
    if any(one["rolearn"] == role for one in known):
        return
    known.append({"rolearn": role, "username": entries.NODE_NAME, "groups": entries.NODES})
    body = {"metadata": {"name": "aws-auth"}, "data": {"mapRoles": yaml.safe_dump(known)}}
    if data:
        cluster.api.patch(f"{AWS_AUTH}/aws-auth", body)
    else:
        cluster.api.create(AWS_AUTH, body)


def _aws_auth(cluster) -> dict[str, str]:
    try:
        return cluster.api.get(f"{AWS_AUTH}/aws-auth").get("data") or {}
    except ApiError as problem:
        if problem.status != 404:
            raise
        return {}


def _read(token: str, name: str) -> Call:
    """Return the call that a token stands for, as it would be if it were made for a cluster."""
    text = token.removeprefix(PREFIX)
    try:
        url = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
        parts = urlsplit(url)
        asked = {key: value for key, (value,) in parse_qs(parts.query).items()}
        credential = asked["X-Amz-Credential"]
        signed = asked["X-Amz-SignedHeaders"].split(";")
    except (binascii.Error, ValueError, KeyError):
        raise Refusal("Unauthorized", "the token is none of EKS") from None
    ours = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    if (parts.netloc, parts.path) != (ours.netloc, "/") or not token.startswith(PREFIX):
        raise Refusal("Unauthorized", "the token is not for this cloud")
    plain = asked.get("Action") == "GetCallerIdentity" and asked.keys() <= WORDS
    if not plain or "x-k8s-aws-id" not in signed:
        raise Refusal("Unauthorized", "the token is not for a cluster")
    builder = EnvironBuilder("/", f"{ours.scheme}://{parts.netloc}", query_string=parts.query)
    builder.headers["x-k8s-aws-id"] = name
    request, key = Request(builder.get_environ()), credential.split("/")[0]
    return Call(request, "sts", "sts", "GetCallerIdentity", key, {}, credential)
