"""What a call needs to be allowed to do, and whether the policies of its caller allow it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from botocore.exceptions import UnknownServiceError
from botocore.model import OperationNotFoundError
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.utils import get_service_model

from helpers.cloud import policies, recorder
from helpers.cloud.calls import Call, Refusal
from helpers.cloud.environment import ACCOUNT, ROOT_KEY
from helpers.cloud.services import iam, sts

Need = tuple[str, str, dict]  # action, ARN of the resource, what conditions ask about them

# What policies call an operation, where that is another name (for S3 see services/s3.py).
ACTIONS = {
    "Invoke": "InvokeFunction",
    "SendMessageBatch": "SendMessage",
    "DeleteMessageBatch": "DeleteMessage",
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
    "PublishBatch": "Publish",
}
# The parameters that name what a call is about, the nearest first; and its ARN, from the resource
# on. {} is the parameter's value. Where none of these is given, any ARN of the service counts.
RESOURCES = [
    line.split()
    for line in """
    cloudformation StackName stack/{}/*
    codebuild projectName,name,names,id,ids project/{}
    codecommit repositoryName,repositoryNames {}
    codepipeline actionName {pipelineName}/{stageName}/{}
    codepipeline stageName {pipelineName}/{}
    codepipeline pipelineName,name {}
    dynamodb TableName table/{}
    ecr repositoryName,repositoryNames repository/{}
    eks nodegroupName nodegroup/{clusterName}/{}/*
    eks principalArn access-entry/{clusterName}/{}/*
    eks clusterName,name cluster/{}
    events Rule,Name rule/{}
    iam InstanceProfileName instance-profile/{}
    iam GroupName group/{}
    iam UserName user/{}
    iam RoleName role/{}
    iam PolicyArn,PolicyName policy/{}
    kms KeyId key/{}
    lambda FunctionName function:{}
    logs logStreamName log-group:{logGroupName}:log-stream:{}
    logs logGroupName,logGroupIdentifier log-group:{}:log-stream:
    secretsmanager SecretId,Name secret:{}-??????
    sns Name {}
    sqs QueueUrl,QueueName {}
    ssm Name,Names,Path parameter/{}
    sts RoleArn {}
    """.strip().splitlines()
]
# What is not there yet, so that another resource is what the call is about.
MADE = {"CreateNodegroup nodegroupName", "CreateAccessEntry principalArn"}
# EC2's resources, and how their ids begin.
KINDS = """acl:network-acl ami:image eipalloc:elastic-ip eni:network-interface i:instance
    igw:internet-gateway key:key-pair lt:launch-template nat:natgateway rtb:route-table
    sg:security-group snap:snapshot subnet:subnet vol:volume vpc:vpc"""
IDS = dict(pair.split(":") for pair in KINDS.split())
# Parameters with ids of what is not acted on, or with words that may look like one.
ELSEWHERE = {"IpPermissions", "GatewayId", "NatGatewayId", "UserData", "Filters", "Tags"}
ROOT = {ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root"}
ROOT_MAY = {"s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"}


def check(call: Call) -> None:
    """Refuse what the caller's policies do not allow, or a policy of the resource denies.

    The root user may do everything but assume roles and what a bucket's policy denies to all.
    """
    if not call.backend or call.key == "anonymous" or call.name == "sts:GetCallerIdentity":
        return
    arn, names, about = sts.caller(call.key)
    own, found = iam.owned(call.key), needs(call)
    for action, resource, context in found:
        facts = (action, resource, about | context, names)
        reason = why_not(own, _theirs(arn, action, resource), *facts)
        if action == "sts:AssumeRole":
            _check_trust(call, arn, *facts)
        if reason is not None:
            raise refusal(call, arn, action, resource, reason)
    recorder.note(call.key, [need[:2] for need in found])
    if call.service == "ec2" and call.request.values.get("DryRun") == "true":
        text = "Request would have succeeded, but DryRun flag is set."
        raise Refusal("DryRunOperation", text, 412)


def require(key: str, action: str, resource: str) -> None:
    """Refuse what the owner of a key may not do, for work that is no call of the API.

    Args:
        key: an access key id (of a service's role: ``sts.assume``).
        action: ``ecr:PutImage``.
        resource: the ARN of what it is done to.

    Raises:
        Refusal: no policy of the owner allows it, or one denies it.
    """
    arn, names, about = sts.caller(key)
    theirs = _theirs(arn, action, resource)
    reason = why_not(iam.owned(key), theirs, action, resource, about, names)
    if reason is not None:
        text = f"User: {arn} is not authorized to perform: {action} on resource: {resource} "
        raise Refusal("AccessDeniedException", text + reason, 403)
    recorder.note(key, [(action, resource)])


def why_not(
    own: Mapping[str, dict] | None,
    theirs: list[dict],
    action: str,
    resource: str,
    context: Mapping,
    names: set[str],
) -> str | None:
    """Return why something is not allowed, in AWS's words, or None if it is.

    Args:
        own: the caller's own policies; None if it needs none.
        theirs: the resource's policies; naming the caller, they may allow it alone.
        action: ``s3:GetObject``.
        resource: its ARN, or ``*``.
        context: condition keys (lower case) and their values.
        names: the names that a resource's policy may have for the caller.
    """
    facts = (action, resource, context)
    said = "Allow" if own is None else policies.verdict(own.values(), *facts)
    if policies.verdict(theirs, *facts, names) == "Deny":
        return "with an explicit deny in a resource-based policy"
    if said == "Deny":
        return "with an explicit deny in an identity-based policy"
    if said == "Allow" or policies.verdict(theirs, *facts, names - ROOT) == "Allow":
        return None
    return f"because no identity-based policy allows the {action} action"


def refusal(call: Call, arn: str, action: str, resource: str, reason: str) -> Refusal:
    """Return the error for something that is not allowed, as the service words it."""
    quoted = f'"{resource}"' if call.service == "s3" else resource
    where = "" if resource == "*" and call.service in ("s3", "ec2") else f" on resource: {quoted}"
    text = f"User: {arn} is not authorized to perform: {action}{where} {reason}".rstrip()
    if call.service == "ec2":
        text = f"You are not authorized to perform this operation. {text}"
        return Refusal("UnauthorizedOperation", text, 403)
    if "json" in call.protocol:
        return Refusal("AccessDeniedException", text, 403 if "rest" in call.protocol else 400)
    return Refusal("AccessDenied", text, 403)


def needs(call: Call) -> list[Need]:
    """Return all that a call needs to be allowed: actions, each with the ARN of its resource.

    Raises:
        Refusal: the body of the request cannot be read.
    """
    region = {"aws:requestedregion": call.credential.split("/")[2] if call.credential else ""}
    if call.service == "s3":
        from helpers.cloud.services import s3

        return [(*need, region | s3.context(call)) for need in s3.needs(call)]
    try:
        model = get_service_model(call.service)
        operation = model.operation_model(call.operation)
    except (UnknownServiceError, OperationNotFoundError):
        return [(call.name, "*", region)]
    prefix = "cloudwatch" if call.service == "cloudwatch" else model.signing_name
    parameters = _parameters(call, operation)
    action = f"{prefix}:{ACTIONS.get(call.operation, call.operation)}"
    members = operation.input_shape.members if operation.input_shape else {}
    arn = f"arn:aws:{prefix}:{'' if prefix == 'iam' else region['aws:requestedregion']}:{ACCOUNT}:"
    find = _ec2 if prefix == "ec2" else _resources
    found = find(call, parameters, members, arn)
    asked = {
        f"{prefix}:{name.lower()}": str(value)
        for name, value in parameters.items()
        if isinstance(value, str | int)
    }
    tags = [parameters.get(name) for name in ("Tags", "tags", "TagSpecifications")]
    tags = dict(pair for given in tags for pair in _tags(given))
    asked |= {f"aws:requesttag/{name.lower()}": value for name, value in tags.items()}
    asked |= {"aws:tagkeys": list(tags)} if tags else {}
    wanted = [(action, one, region | asked | _tagged(one)) for one in found]
    for one in parameters.get("TagSpecifications", []) if prefix == "ec2" else []:
        created = {"ec2:createaction": call.operation}
        kind = f"{arn}{one.get('ResourceType')}/*"
        wanted.append(("ec2:CreateTags", kind, region | asked | created))
    to = {"iam:passedtoservice": f"{'ec2' if prefix == 'iam' else prefix}.amazonaws.com"}
    return wanted + [("iam:PassRole", role, region | to) for role in _passed(call, parameters)]


def _parameters(call: Call, operation) -> dict:
    request = call.request
    try:
        return PROTOCOL_PARSERS[call.protocol](operation).parse(
            {
                "method": request.method,
                "values": request.values,
                "headers": request.headers,
                "body": request.get_data(),
                "url_path": request.path,
                "url_params": call.labels,
            }
        )
    except Exception as problem:  # whatever a parser may stumble over
        if call.key == ROOT_KEY:  # moto will say what is wrong with it
            return {}
        raise Refusal("SerializationException", f"The request cannot be read: {problem}") from None


def _resources(call: Call, parameters: dict, members: dict, arn: str) -> list[str]:
    """Return the ARNs of what a call is about, by the table of the service."""
    table = {
        name: template
        for service, names, template in RESOURCES
        for name in names.split(",")
        if service == call.service and f"{call.operation} {name}" not in MADE
    }
    if call.service == "ssm" and "Parameter" not in call.operation:
        table = {}
    inner = parameters.get("pipeline")  # codepipeline:CreatePipeline
    given = parameters | (inner if isinstance(inner, dict) else {})
    for name, template in table.items():
        values = [str(one) for one in policies.listed(given.get(name))]
        if values:
            return [_arn(call.service, arn, template, one, given) for one in values]
    begin = ":".join(arn.split(":")[:3])
    own = [(key, one) for key, one in _walk(parameters) if str(one).startswith(begin)]
    if own:
        return [one for key, one in own if key == own[0][0]]
    if call.service == "iam" and (kind := re.fullmatch("List(User|Group|Role)s", call.operation)):
        return [f"{arn}{kind[1].lower()}{given.get('PathPrefix') or '/'}"]
    if call.service == "iam" and "UserName" in members:  # whoever calls
        return [sts.caller(call.key)[0]]
    for name, template in table.items():
        if name in members:
            return [_arn(call.service, arn, template, "*", given)]
    return ["*"]


def _arn(service: str, arn: str, template: str, value: str, given: dict) -> str:
    if template.startswith("access-entry/"):  # role/123456789012/NAME
        value = re.sub("/(.*/)?", f"/{ACCOUNT}/", value.rpartition(":")[2])
    if value.startswith("arn:"):
        return value
    if service == "iam":
        kind = template.removesuffix("/{}")
        return iam.find(kind, value) or f"{arn}{kind}{given.get('Path') or '/'}{value}"
    if service == "sqs":
        value = value.rsplit("/", 1)[-1]
    elif service == "codebuild":  # a build's id begins with its project's name
        value = value.split(":")[0]
    elif service == "ssm":
        value = value.strip("/")
    others = dict.fromkeys(re.findall(r"{(\w+)}", template), "*")
    return arn + template.format(value, **(others | given))


def _ec2(call: Call, parameters: dict, _: dict, arn: str) -> list[str]:
    """Return the ARNs of all that a call of EC2 acts on: what it names, and what it makes."""
    if re.fullmatch("Describe(?!.*Attribute).*", call.operation):
        return ["*"]
    found = []
    for key, value in _walk(parameters):
        begin = re.fullmatch(r"([a-z]+)-[0-9a-f]+", str(value))
        if begin and begin[1] in IDS:
            kind = IDS[begin[1]]
            owner = arn.replace(ACCOUNT, "") if kind in ("image", "snapshot") else arn
            found.append(f"{owner}{kind}/{value}")
        elif key == "KeyName":
            found.append(f"{arn}key-pair/{value}")
        elif key in ("GroupName", "SecurityGroups") and call.operation != "CreateSecurityGroup":
            from moto.ec2.models import ec2_backends

            backend = ec2_backends[ACCOUNT][arn.split(":")[3]]
            group = backend.get_security_group_by_name_or_id(value)
            found.append(f"{arn}security-group/{group.id if group else value}")
    made = re.sub("(?<!^)(?=[A-Z])", "-", call.operation.removeprefix("Create")).lower()
    if call.operation == "RunInstances":
        found += [f"{arn}{kind}/*" for kind in ("instance", "network-interface", "volume")]
    elif call.operation == "AllocateAddress":
        found.append(f"{arn}elastic-ip/*")
    elif made in set(IDS.values()) - {"key-pair"} and call.operation.startswith("Create"):
        found.append(f"{arn}{made}/*")
    return list(dict.fromkeys(found)) or ["*"]


def _passed(call: Call, parameters: dict) -> Iterator[str]:
    """Yield the roles that a call hands to a service, which may then act as they may."""
    if call.name == "iam:AddRoleToInstanceProfile":
        yield iam.find("role", parameters.get("RoleName", "")) or f"arn:aws:iam::{ACCOUNT}:role/*"
    if call.service in ("iam", "sts"):
        return
    for key, value in _walk(parameters):
        if re.search("role(arn)?$", key, re.I) and re.match(r"arn:aws:iam::\d+:role/", str(value)):
            yield value
    profile = parameters.get("IamInstanceProfile") or {}
    yield from iam.roles_of(profile.get("Name") or profile.get("Arn", "").rsplit("/", 1)[-1])


def _walk(value, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield the plain values of nested parameters, each with the name nearest to it."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name not in ELSEWHERE:
                yield from _walk(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from _walk(one, key)
    else:
        yield key, value


def _tags(value) -> Iterator[tuple[str, str]]:
    """Yield the tags in a list of them (however deep), or in a mapping."""
    for one in policies.listed(value):
        if not isinstance(one, dict):
            continue
        named = {name.lower(): inner for name, inner in one.items()}
        if "key" in named:
            yield named["key"], named.get("value", "")
        elif "tags" in named:
            yield from _tags(named["tags"])
        else:
            yield from one.items()


def _tagged(resource: str) -> dict[str, str]:
    """Return the tags that a resource of EC2 has, by the names that conditions have for them."""
    if ":ec2:" not in resource:
        return {}
    from moto.ec2.models import ec2_backends

    tags = ec2_backends[ACCOUNT][resource.split(":")[3]].tags.get(resource.rsplit("/", 1)[-1], {})
    both = ("aws:resourcetag/", "ec2:resourcetag/")
    return {f"{prefix}{name.lower()}": value for prefix in both for name, value in tags.items()}


def _theirs(arn: str, action: str, resource: str) -> list[dict]:
    """Return the policies of a resource that allow or deny by themselves."""
    if action.startswith("s3:") and not (arn.endswith(":root") and action in ROOT_MAY):
        from helpers.cloud.services import s3

        return s3.policy(resource)
    if action == "sts:AssumeRole":
        return sts.trust(resource)
    if action.startswith("ecr:"):
        from helpers.cloud.services import ecr

        return ecr.policy(resource)
    return []


def _check_trust(call: Call, arn: str, action: str, role: str, context: dict, names: set) -> None:
    """Refuse to let somebody be a role that does not trust them, or is none."""
    if arn.endswith(":root"):
        raise Refusal("AccessDenied", "Roles may not be assumed by root accounts.", 403)
    if policies.verdict(sts.trust(role), action, role, context, names) != "Allow":
        raise refusal(call, arn, action, role, "")
    if any(name.startswith("Policy") for name in call.request.values):
        raise NotImplementedError("a session may do all that its role may")
