"""How properties of resources become parameters of the API, where their forms differ."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import moto
from botocore.exceptions import ClientError

from helpers.cloud.archives import pack
from helpers.cloud.services.iam import find
from helpers.cloud.stacks.api import Caller, Failure
from helpers.cloud.stacks.resources import Resource, Setting, Type


def renamed(**names: str):
    """Return a function that gives properties their names in the API."""
    return lambda p: {names.get(name, name): value for name, value in p.items()}


def _put(name: str, put, value) -> dict:
    return put(value) if callable(put) else {put or name: value}


def single(name: str, operation: str, undo: str = "", put=None, default=None, **more) -> Setting:
    """Return a setting of one property; ``put`` is its parameter, or makes all parameters."""

    def wanted(p: dict) -> list[dict]:
        value = p.get(name, default)
        return [] if value is None else [_put(name, put, value)]

    return Setting(name, operation, undo, wanted, **more)


def each(name: str, operation: str, undo: str, put=None, default=(), **more) -> Setting:
    """Return a setting of a property that is a list, with one call for each of its parts."""

    def wanted(p: dict) -> list[dict]:
        return [_put(name, put, one) for one in p.get(name, default)]

    return Setting(name, operation, undo, wanted, **more)


def tags(operation: str, undo: str, more=(), key: str = "") -> Setting:
    """Return the setting of tags, which are taken away by their keys."""
    put = lambda tag: {"Tags": [tag], "TagKeys": [tag["Key"]], **dict(more)}  # noqa: E731
    return each("Tags", operation, undo, put, key=key)


# --- S3

CLOSED = dict.fromkeys(
    "BlockPublicAcls BlockPublicPolicy IgnorePublicAcls RestrictPublicBuckets".split(), True
)


def encryption(value: dict) -> dict:
    """Return how a bucket is encrypted."""
    names = renamed(ServerSideEncryptionByDefault="ApplyServerSideEncryptionByDefault")
    rules = [names(rule) for rule in value["ServerSideEncryptionConfiguration"]]
    return {"ServerSideEncryptionConfiguration": {"Rules": rules}}


def website(value: dict) -> dict:
    """Return the website of a bucket."""
    parts = {"IndexDocument": "Suffix", "ErrorDocument": "Key"}
    found = {n: {parts[n]: one} if n in parts else one for n, one in value.items()}
    return {"WebsiteConfiguration": found}


def lifecycle(value: dict) -> dict:
    """Return how long a bucket keeps its objects."""
    rules = [{"Filter": {"Prefix": rule.get("Prefix", "")}, **rule} for rule in value["Rules"]]
    for rule in rules:
        rule.pop("Prefix", None)
        if "ExpirationInDays" in rule:
            rule["Expiration"] = {"Days": rule.pop("ExpirationInDays")}
    return {"LifecycleConfiguration": {"Rules": rules}}


def notification(value: dict) -> dict:
    """Return who hears what happens in a bucket."""
    found, bridge = dict(value), value.get("EventBridgeConfiguration", {})
    if str(bridge.get("EventBridgeEnabled", True)).lower() == "false":
        del found["EventBridgeConfiguration"]
    elif bridge:
        found["EventBridgeConfiguration"] = {}
    names = renamed(Event="Events", Function="LambdaFunctionArn")
    if functions := found.pop("LambdaConfigurations", []):
        found["LambdaFunctionConfigurations"] = [names(one) for one in functions]
    return {"NotificationConfiguration": found}


def bucket(p: dict) -> dict:
    """Return a bucket."""
    if "OwnershipControls" in p:  # at once, since without it there may be no AccessControl
        p["ObjectOwnership"] = p.pop("OwnershipControls")["Rules"][0]["ObjectOwnership"]
    if "AccessControl" in p:
        p["ACL"] = re.sub(r"\B[A-Z]", r"-\g<0>", p.pop("AccessControl")).lower()
    return renamed(BucketName="Bucket")(p)


class Bucket(Type):
    """A bucket, which the API would take for new although it is there already."""

    def make(self, call: Caller, one: Resource, started) -> None:
        """Create the bucket, unless its name is taken."""
        name = one.properties.get("BucketName")
        try:
            if name and call("s3", "HeadBucket", {"Bucket": name}):
                raise Failure(f"{name} already exists")
        except ClientError:
            pass
        super().make(call, one, started)


# --- IAM


def policies(kind: str) -> tuple[Setting, ...]:
    """Return the settings that users, groups and roles share."""
    arns = each("ManagedPolicyArns", f"Attach{kind}Policy", f"Detach{kind}Policy", "PolicyArn")
    return arns, each("Policies", f"Put{kind}Policy", f"Delete{kind}Policy", dict)


def inline(kind: str) -> Setting:
    """Return the setting of a policy that is put into users, groups or roles."""

    def wanted(p: dict) -> list[dict]:
        policy = {name: p.get(name) for name in ("PolicyName", "PolicyDocument")}
        return [{f"{kind}Name": who} | policy for who in p.get(f"{kind}s", [])]

    names = f"{kind}s PolicyName PolicyDocument"
    return Setting(names, f"Put{kind}Policy", f"Delete{kind}Policy", wanted)


def attached(kind: str) -> Setting:
    """Return the setting of a policy that is attached to users, groups or roles."""
    return each(f"{kind}s", f"Attach{kind}Policy", f"Detach{kind}Policy", f"{kind}Name")


# --- EC2

TAGS = each("Tags", "CreateTags", "DeleteTags", lambda tag: {"Tags": [tag]}, key="Resources")
EVERYWHERE = {"IpProtocol": "-1", "CidrIp": "0.0.0.0/0"}
SIDES = {
    "CidrIp": ("IpRanges", "CidrIp"),
    "CidrIpv6": ("Ipv6Ranges", "CidrIpv6"),
    "SourceSecurityGroupId": ("UserIdGroupPairs", "GroupId"),
    "SourceSecurityGroupName": ("UserIdGroupPairs", "GroupName"),
    "DestinationSecurityGroupId": ("UserIdGroupPairs", "GroupId"),
}


def permission(rule: dict) -> dict:
    """Return a rule of a security group as the API takes it."""
    found = {name: value for name, value in rule.items() if name not in SIDES}
    why = {"Description": found.pop("Description")} if "Description" in found else {}
    for name in SIDES.keys() & rule.keys():
        place, key = SIDES[name]
        found[place] = [{key: rule[name], **why}]
    return {"IpPermissions": [found]}


def rule(p: dict) -> dict:
    """Return a rule that is a resource of its own."""
    group = {name: p[name] for name in ("GroupId", "GroupName") if name in p}
    return group | permission({name: p[name] for name in p if name not in group})


def instance(p: dict) -> dict:
    """Return an instance: one of them."""
    found = {"MinCount": 1, "MaxCount": 1} | p
    if "IamInstanceProfile" in found:
        found["IamInstanceProfile"] = {"Name": found["IamInstanceProfile"]}
    if "AvailabilityZone" in found:
        found["Placement"] = {"AvailabilityZone": found.pop("AvailabilityZone")}
    if "NetworkInterfaces" in found:
        names = renamed(GroupSet="Groups")
        found["NetworkInterfaces"] = [names(one) for one in found["NetworkInterfaces"]]
    return found


class SecurityGroup(Type):
    """A security group, which goes by its name in the default network, and by its id elsewhere."""

    def refer(self, one: Resource) -> str:
        """Return the name or the id."""
        return one.physical if "VpcId" in one.properties else one.facts["GroupName"]


class Instance(Type):
    """An instance, which must be stopped before its type or user data can be changed."""

    def change(self, call: Caller, one: Resource, old: dict, new: dict) -> None:
        """Stop it, change it, start it again."""
        both = {n for n in ("InstanceType", "UserData") if n in old and n in new}
        if changed := [name for name in both if old[name] != new[name]]:
            key = {"InstanceIds": one.physical}
            call("ec2", "StopInstances", key)
            call.wait("ec2", "InstanceStopped", key)
            for name in changed:
                value = base64.b64decode(new[name]) if name == "UserData" else new[name]
                wanted = {"InstanceId": one.physical, name: {"Value": value}}
                call("ec2", "ModifyInstanceAttribute", wanted)
            call("ec2", "StartInstances", key)
        super().change(call, one, *({n: p[n] for n in p if n not in both} for p in (old, new)))


# --- Lambda


def code(code: dict) -> dict:
    """Return a function's code, packed as CloudFormation packs what stands in a template."""
    if "ZipFile" not in code:
        return code
    module = Path(moto.__file__).parent / "awslambda/resources/cfnresponse.py.txt"
    files = {"index.py": code["ZipFile"].encode(), "cfnresponse.py": module.read_bytes()}
    return {"ZipFile": pack({name: (content, 0o644) for name, content in files.items()})}


def function(p: dict) -> dict:
    """Return a function."""
    return p | {"Code": code(p["Code"])} if "Code" in p else p


# --- The rest


def project(p: dict) -> dict:
    """Return a project, whose role a template may give by its name alone."""
    return p | {"ServiceRole": find("role", p["ServiceRole"]) or p["ServiceRole"]}


def pipeline(p: dict) -> dict:
    """Return a pipeline, beside which its tags stand."""
    facts = {n: p[n] for n in p if n not in ("Tags", "RestartExecutionOnUpdate")}
    return {"pipeline": facts} | {n: p[n] for n in p if n == "Tags"}


def closed(transition: dict) -> dict:
    """Return a stage of a pipeline that may not be entered."""
    return {"TransitionType": "Inbound", **transition}


class Pipeline(Type):
    """A pipeline, which may be told to run again when it is changed."""

    def change(self, call: Caller, one: Resource, old: dict, new: dict) -> None:
        """Update it, and start it."""
        name = {"Name": one.physical}  # which may be made up
        super().change(call, one, old | name, new | name)
        if str(new.get("RestartExecutionOnUpdate")).lower() == "true":
            call("codepipeline", "StartPipelineExecution", {"name": one.physical})


def topic(p: dict) -> dict:
    """Return a topic, most of whose properties are attributes."""
    found = {"Name": p["TopicName"], "Tags": p.get("Tags", [])}
    return found | {"Attributes": {n: p[n] for n in p if n not in ("TopicName", "Tags")}}
