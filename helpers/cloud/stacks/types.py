"""The types of resources that the local cloud has: the table."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path

import moto
from botocore.exceptions import ClientError

from helpers.cloud.stacks.api import Caller, Failure
from helpers.cloud.stacks.custom import Custom
from helpers.cloud.stacks.resources import Resource, Setting, Type

Properties = dict


def renamed(**names: str):
    """Return a function that gives properties their names in the API."""
    return lambda p: {names.get(name, name): value for name, value in p.items()}


def single(name: str, operation: str, undo: str = "", put=None, default=None, **more) -> Setting:
    """Return a setting of one property, whose value ``put`` turns into parameters."""
    put = put or (lambda value: {name: value})

    def wanted(p: Properties) -> list[dict]:
        value = p.get(name, default)
        return [] if value is None else [put(value)]

    return Setting(name, operation, undo, wanted, **more)


def each(name: str, operation: str, undo: str, put, **more) -> Setting:
    """Return a setting of a property that is a list, with one call for each of its parts."""
    return Setting(name, operation, undo, lambda p: [put(one) for one in p.get(name, [])], **more)


# --- S3

CLOSED = {
    "BlockPublicAcls": True,
    "BlockPublicPolicy": True,
    "IgnorePublicAcls": True,
    "RestrictPublicBuckets": True,
}


def _encryption(value: dict) -> dict:
    rules = value["ServerSideEncryptionConfiguration"]
    names = renamed(ServerSideEncryptionByDefault="ApplyServerSideEncryptionByDefault")
    return {"ServerSideEncryptionConfiguration": {"Rules": [names(rule) for rule in rules]}}


def _website(value: dict) -> dict:
    found = dict(value)
    if "IndexDocument" in found:
        found["IndexDocument"] = {"Suffix": found["IndexDocument"]}
    if "ErrorDocument" in found:
        found["ErrorDocument"] = {"Key": found["ErrorDocument"]}
    if "RoutingRules" in found:
        names = renamed(RoutingRuleCondition="Condition", RedirectRule="Redirect")
        found["RoutingRules"] = [names(rule) for rule in found["RoutingRules"]]
    return {"WebsiteConfiguration": found}


def _lifecycle(value: dict) -> dict:
    rules = []
    for given in value["Rules"]:
        rule = dict(given)
        rule["Filter"] = {"Prefix": rule.pop("Prefix", "")}
        if "ExpirationInDays" in rule:
            rule["Expiration"] = {"Days": rule.pop("ExpirationInDays")}
        if "NoncurrentVersionExpirationInDays" in rule:
            days = rule.pop("NoncurrentVersionExpirationInDays")
            rule["NoncurrentVersionExpiration"] = {"NoncurrentDays": days}
        if "Transitions" in rule:
            names = renamed(TransitionInDays="Days", TransitionDate="Date")
            rule["Transitions"] = [names(one) for one in rule["Transitions"]]
        rules.append(rule)
    return {"LifecycleConfiguration": {"Rules": rules}}


def _notification(value: dict) -> dict:
    found = {}
    for name, target, arn in (
        ("QueueConfigurations", "Queue", "QueueArn"),
        ("TopicConfigurations", "Topic", "TopicArn"),
        ("LambdaConfigurations", "Function", "LambdaFunctionArn"),
    ):
        place = name.replace("LambdaConf", "LambdaFunctionConf")
        for one in value.get(name, []):
            entry = {arn: one[target], "Events": [one["Event"]]}
            if "Filter" in one:
                entry["Filter"] = {"Key": {"FilterRules": one["Filter"]["S3Key"]["Rules"]}}
            found.setdefault(place, []).append(entry)
    bridge = value.get("EventBridgeConfiguration")
    if bridge and str(bridge.get("EventBridgeEnabled", True)).lower() == "true":
        found["EventBridgeConfiguration"] = {}
    return {"NotificationConfiguration": found}


def _bucket(p: Properties) -> dict:
    wanted = {"Bucket": p.pop("BucketName")}
    if "AccessControl" in p:
        letters = p.pop("AccessControl")
        wanted["ACL"] = "".join(f"-{c.lower()}" if c.isupper() else c for c in letters).lstrip("-")
    return wanted | p


class Bucket(Type):
    """A bucket, which the API would take for new although it is there already."""

    def make(self, call: Caller, one: Resource, started) -> None:
        """Create the bucket, unless its name is taken."""
        if name := one.properties.get("BucketName"):
            try:
                call("s3", "HeadBucket", {"Bucket": name})
            except ClientError:
                pass
            else:
                raise Failure(f"{name} already exists")
        super().make(call, one, started)


# --- IAM


def _identity(kind: str) -> tuple[Setting, ...]:
    """Return the settings that users, groups and roles share."""
    return (
        each(
            "ManagedPolicyArns",
            f"Attach{kind}Policy",
            f"Detach{kind}Policy",
            lambda arn: {"PolicyArn": arn},
        ),
        each("Policies", f"Put{kind}Policy", f"Delete{kind}Policy", dict),
    )


def _attached(operation: str, undo: str, put) -> tuple[Setting, ...]:
    """Return the settings of a policy that says to whom it belongs."""
    return tuple(
        Setting(
            f"{kind}s PolicyName PolicyDocument",
            operation.format(kind),
            undo.format(kind),
            lambda p, kind=kind: [{f"{kind}Name": who} | put(p) for who in p.get(f"{kind}s", [])],
        )
        for kind in ("User", "Group", "Role")
    )


def _inline(p: Properties) -> dict:
    return {"PolicyName": p["PolicyName"], "PolicyDocument": p["PolicyDocument"]}


# --- EC2


def _tags(key: str = "Resources") -> Setting:
    return each("Tags", "CreateTags", "DeleteTags", lambda tag: {"Tags": [tag]}, key=key)


TAGS = _tags()
EVERYWHERE = {"IpProtocol": "-1", "CidrIp": "0.0.0.0/0"}


def _permission(rule: dict) -> dict:
    """Return a rule of a security group as the API takes it."""
    found = {n: rule[n] for n in ("IpProtocol", "FromPort", "ToPort") if n in rule}
    found["IpProtocol"] = str(found["IpProtocol"])
    why = {"Description": rule["Description"]} if "Description" in rule else {}
    side = "Source" if any(name.startswith("Source") for name in rule) else "Destination"
    if "CidrIp" in rule:
        found["IpRanges"] = [{"CidrIp": rule["CidrIp"], **why}]
    if "CidrIpv6" in rule:
        found["Ipv6Ranges"] = [{"CidrIpv6": rule["CidrIpv6"], **why}]
    for name, part in (("SecurityGroupId", "GroupId"), ("SecurityGroupName", "GroupName")):
        if f"{side}{name}" in rule:
            found["UserIdGroupPairs"] = [{part: rule[f"{side}{name}"], **why}]
    if f"{side}PrefixListId" in rule:
        found["PrefixListIds"] = [{"PrefixListId": rule[f"{side}PrefixListId"], **why}]
    return {"IpPermissions": [found]}


def _rule(p: Properties) -> dict:
    group = {name: p[name] for name in ("GroupId", "GroupName") if name in p}
    return group | _permission(p)


def _instance(p: Properties) -> dict:
    found = {"MinCount": 1, "MaxCount": 1} | p
    if "UserData" in found:  # botocore encodes it
        found["UserData"] = base64.b64decode(found["UserData"]).decode()
    if "IamInstanceProfile" in found:
        found["IamInstanceProfile"] = {"Name": found["IamInstanceProfile"]}
    if "Monitoring" in found:
        found["Monitoring"] = {"Enabled": found["Monitoring"]}
    place = {n: found.pop(n) for n in ("AvailabilityZone", "Tenancy", "HostId") if n in found}
    if place:
        found["Placement"] = place
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
        still = ("InstanceType", "UserData")
        key = {"InstanceIds": one.physical}
        if any(old.get(name) != new.get(name) for name in still):
            call("ec2", "StopInstances", key)
            call.wait("ec2", "instance_stopped", key)
            for name in still:
                if old.get(name) != new.get(name):
                    value = new.get(name, "m1.small" if name == "InstanceType" else "")
                    value = base64.b64decode(value) if name == "UserData" else value
                    wanted = {"InstanceId": one.physical, name: {"Value": value}}
                    call("ec2", "ModifyInstanceAttribute", wanted)
            call("ec2", "StartInstances", key)
        rest = {name: new[name] for name in new if name not in still}
        super().change(call, one, {n: old[n] for n in old if n not in still}, rest)


class KeyPair(Type):
    """A key pair: imported, or made, with its private key put into the Parameter Store."""

    def make(self, call: Caller, one: Resource, started) -> None:
        """Make or import it."""
        own = "PublicKeyMaterial" in one.properties
        kind = IMPORTED_KEY if own else self
        Type.make(kind, call, one, started)
        if not own:
            path = f"/ec2/keypair/{one.made['KeyPairId']}"
            key = {"Name": path, "Value": one.made.pop("KeyMaterial"), "Type": "SecureString"}
            call("ssm", "PutParameter", key)

    def remove(self, call: Caller, one: Resource) -> None:
        """Delete it, and the private key."""
        super().remove(call, one)
        if "PublicKeyMaterial" not in one.properties:
            call("ssm", "DeleteParameters", {"Names": [f"/ec2/keypair/{one.made['KeyPairId']}"]})


def _version(which: str) -> str:
    path = f"to_string(LaunchTemplates[0].{which}VersionNumber)"
    return f"DescribeLaunchTemplates LaunchTemplateIds {path}"


def _clone(kind: str) -> str:
    return f"GetRepository repositoryName=RepositoryName repositoryMetadata.cloneUrl{kind}"


def _instance_fact(path: str) -> str:
    return f"DescribeInstances InstanceIds Reservations[0].Instances[0].{path}"


KEY_ATTRIBUTES = {"KeyPairId": "{KeyPairId}", "KeyFingerprint": "{KeyFingerprint}"}
IMPORTED_KEY = Type(
    "ec2",
    "ImportKeyPair",
    "KeyName",
    "DeleteKeyPair",
    name="KeyName",
    settings=(_tags("Resources=KeyPairId"),),
)

# --- Lambda


def _code(code: dict) -> dict:
    """Return a function's code, packed as CloudFormation packs what stands in a template."""
    if "ZipFile" not in code:
        return code
    buffer = io.BytesIO()
    module = Path(moto.__file__).parent / "awslambda/resources/cfnresponse.py.txt"
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.py", code["ZipFile"])
        archive.writestr("cfnresponse.py", module.read_text())
    return {"ZipFile": buffer.getvalue()}


def _function(p: Properties) -> dict:
    return p | {"Code": _code(p["Code"])} if "Code" in p else p


# --- The rest


def _pipeline(p: Properties) -> dict:
    tags = {"tags": p["Tags"]} if p.get("Tags") else {}
    apart = ("Tags", "RestartExecutionOnUpdate")
    return {"pipeline": {n: v for n, v in p.items() if n not in apart}} | tags


def _logging(p: Properties) -> dict:
    found = dict(p)
    if "Logging" in found:
        kinds = found["Logging"]["ClusterLogging"].get("EnabledTypes", [])
        names = [kind["Type"] for kind in kinds]
        found["Logging"] = {"ClusterLogging": [{"types": names, "enabled": True}]}
    return found


def _queue(p: Properties) -> dict:
    apart = ("QueueName", "Tags", "QueueUrl")
    attributes = {
        name: json.dumps(value) if isinstance(value, dict) else value
        for name, value in p.items()
        if name not in apart
    }
    return {n: p[n] for n in apart if n in p} | {"Attributes": attributes}


def _topic(p: Properties) -> dict:
    found = {"Name": p["TopicName"]} | {n: p[n] for n in ("Tags",) if n in p}
    rest = {n: v for n, v in p.items() if n not in ("TopicName", "Tags")}
    return found | ({"Attributes": rest} if rest else {})


def _policies(names: str, key: str, operation: str) -> Setting:
    """Return the setting of a resource that gives its policy to other resources."""

    def wanted(p: Properties) -> list[dict]:
        document = json.dumps(p.get("PolicyDocument"))
        if operation == "SetTopicAttributes":
            value = {"AttributeName": "Policy", "AttributeValue": document}
        else:
            value = {"Attributes": {"Policy": document}}
        return [{key: one} | value for one in p.get(names, [])]

    return Setting(f"{names} PolicyDocument", operation, "", wanted)


_VPC = "DescribeCluster name cluster.resourcesVpcConfig"

# A table is read by its rows, so they stay as they are.
# fmt: off
TYPES: dict[str, Type] = {
    "AWS::S3::Bucket": Bucket("s3", "CreateBucket", "Bucket", "DeleteBucket", name="BucketName",
        tidy=lambda name: name.lower()[-63:], parameters=_bucket,
        settings=(
            single("OwnershipControls", "PutBucketOwnershipControls"),
            single("PublicAccessBlockConfiguration", "PutPublicAccessBlock", default=CLOSED),
            single("VersioningConfiguration", "PutBucketVersioning",
                default={"Status": "Suspended"}),
            single("BucketEncryption", "PutBucketEncryption", "DeleteBucketEncryption",
                _encryption),
            single("WebsiteConfiguration", "PutBucketWebsite", "DeleteBucketWebsite", _website),
            single("LifecycleConfiguration", "PutBucketLifecycleConfiguration",
                "DeleteBucketLifecycle", _lifecycle),
            single("NotificationConfiguration", "PutBucketNotificationConfiguration",
                put=_notification, default={}),
            single("Tags", "PutBucketTagging", "DeleteBucketTagging",
                lambda tags: {"Tagging": {"TagSet": tags}}),
        ),
        attributes={"Arn": "arn:aws:s3:::{id}", "DomainName": "{id}.s3.amazonaws.com",
            "RegionalDomainName": "{id}.s3.{region}.amazonaws.com",
            "DualStackDomainName": "{id}.s3.dualstack.{region}.amazonaws.com",
            "WebsiteURL": "http://{id}.s3-website-{region}.amazonaws.com"}),
    "AWS::S3::BucketPolicy": Type("s3", "PutBucketPolicy", "Bucket=Bucket",
        "DeleteBucketPolicy", ref="{Bucket}", parameters=renamed(PolicyDocument="Policy"),
        update="PutBucketPolicy"),
    "AWS::IAM::User": Type("iam", "CreateUser", "UserName", "DeleteUser", name="UserName",
        undo=True,
        settings=(
            *_identity("User"),
            each("Groups", "AddUserToGroup", "RemoveUserFromGroup", lambda g: {"GroupName": g}),
            single("LoginProfile", "CreateLoginProfile", "DeleteLoginProfile", dict),
            each("Tags", "TagUser", "UntagUser", lambda t: {"Tags": [t],
                "TagKeys": [t["Key"]]}),
        ),
        attributes={"Arn": "GetUser UserName User.Arn"}),
    "AWS::IAM::Group": Type("iam", "CreateGroup", "GroupName", "DeleteGroup", name="GroupName",
        undo=True,
        settings=_identity("Group"),
        attributes={"Arn": "GetGroup GroupName Group.Arn"}),
    "AWS::IAM::Role": Type("iam", "CreateRole", "RoleName", "DeleteRole", name="RoleName",
        undo=True, update="UpdateRole",
        settings=(
            single("AssumeRolePolicyDocument", "UpdateAssumeRolePolicy",
                put=lambda document: {"PolicyDocument": document}, later=True),
            each("Tags", "TagRole", "UntagRole", lambda t: {"Tags": [t],
                "TagKeys": [t["Key"]]}),
            *_identity("Role"),
        ),
        attributes={"Arn": "GetRole RoleName Role.Arn",
            "RoleId": "GetRole RoleName Role.RoleId"}),
    "AWS::IAM::Policy": Type("iam", "", "", "", undo=True,
        settings=_attached("Put{}Policy", "Delete{}Policy", _inline)),
    "AWS::IAM::ManagedPolicy": Type("iam", "CreatePolicy", "PolicyArn", "DeletePolicy",
        ref="Policy.Arn", name="ManagedPolicyName",
        parameters=renamed(ManagedPolicyName="PolicyName"), undo=True,
        settings=(
            single("PolicyDocument", "CreatePolicyVersion",
                put=lambda document: {"PolicyDocument": document, "SetAsDefault": True},
                later=True),
            each("Users", "AttachUserPolicy", "DetachUserPolicy", lambda u: {"UserName": u}),
            each("Groups", "AttachGroupPolicy", "DetachGroupPolicy",
                lambda g: {"GroupName": g}),
            each("Roles", "AttachRolePolicy", "DetachRolePolicy", lambda r: {"RoleName": r}),
        ),
        attributes={"PolicyArn": "{id}"}),
    "AWS::IAM::InstanceProfile": Type("iam", "CreateInstanceProfile", "InstanceProfileName",
        "DeleteInstanceProfile", name="InstanceProfileName", undo=True,
        settings=(each("Roles", "AddRoleToInstanceProfile", "RemoveRoleFromInstanceProfile",
            lambda role: {"RoleName": role}),),
        attributes={"Arn": "GetInstanceProfile InstanceProfileName InstanceProfile.Arn"}),
    "AWS::IAM::AccessKey": Type("iam", "CreateAccessKey", "UserName=UserName AccessKeyId",
        "DeleteAccessKey", ref="AccessKey.AccessKeyId",
        settings=(single("Status", "UpdateAccessKey", default="Active"),),
        attributes={"SecretAccessKey": "CreateAccessKey - AccessKey.SecretAccessKey"}),
    "AWS::EC2::VPC": Type("ec2", "CreateVpc", "VpcId", "DeleteVpc", ref="Vpc.VpcId",
        settings=(
            TAGS,
            single("EnableDnsSupport", "ModifyVpcAttribute",
                put=lambda on: {"EnableDnsSupport": {"Value": on}}, default=True),
            single("EnableDnsHostnames", "ModifyVpcAttribute",
                put=lambda on: {"EnableDnsHostnames": {"Value": on}}, default=False),
        ),
        attributes={"VpcId": "{id}", "CidrBlock": "{CidrBlock}"}),
    "AWS::EC2::Subnet": Type("ec2", "CreateSubnet", "SubnetId", "DeleteSubnet",
        ref="Subnet.SubnetId",
        settings=(
            TAGS,
            single("MapPublicIpOnLaunch", "ModifySubnetAttribute",
                put=lambda on: {"MapPublicIpOnLaunch": {"Value": on}}, default=False),
        ),
        attributes={"SubnetId": "{id}", "VpcId": "{VpcId}", "CidrBlock": "{CidrBlock}",
            "AvailabilityZone": "DescribeSubnets SubnetIds Subnets[0].AvailabilityZone"}),
    "AWS::EC2::InternetGateway": Type("ec2", "CreateInternetGateway", "InternetGatewayId",
        "DeleteInternetGateway", ref="InternetGateway.InternetGatewayId",
        settings=(TAGS,),
        attributes={"InternetGatewayId": "{id}"}),
    "AWS::EC2::VPCGatewayAttachment": Type("ec2", "AttachInternetGateway",
        "InternetGatewayId=InternetGatewayId VpcId=VpcId", "DetachInternetGateway",
        ref="IGW|{VpcId}"),
    "AWS::EC2::RouteTable": Type("ec2", "CreateRouteTable", "RouteTableId", "DeleteRouteTable",
        ref="RouteTable.RouteTableId",
        settings=(TAGS,),
        attributes={"RouteTableId": "{id}"}),
    "AWS::EC2::Route": Type("ec2", "CreateRoute",
        "RouteTableId=RouteTableId DestinationCidrBlock=DestinationCidrBlock", "DeleteRoute",
        ref="{RouteTableId}|{DestinationCidrBlock}", update="ReplaceRoute"),
    "AWS::EC2::SubnetRouteTableAssociation": Type("ec2", "AssociateRouteTable", "AssociationId",
        "DisassociateRouteTable", ref="AssociationId",
        attributes={"Id": "{id}"}),
    "AWS::EC2::SecurityGroup": SecurityGroup("ec2", "CreateSecurityGroup", "GroupId",
        "DeleteSecurityGroup", ref="GroupId", name="GroupName",
        parameters=renamed(GroupDescription="Description"),
        settings=(
            TAGS,
            each("SecurityGroupIngress", "AuthorizeSecurityGroupIngress",
                "RevokeSecurityGroupIngress", _permission),
            Setting("SecurityGroupEgress", "AuthorizeSecurityGroupEgress",
                "RevokeSecurityGroupEgress",
                lambda p: [_permission(r) for r in p.get("SecurityGroupEgress", [EVERYWHERE])]),
        ),
        attributes={"GroupId": "{id}",
            "VpcId": "DescribeSecurityGroups GroupIds SecurityGroups[0].VpcId"}),
    "AWS::EC2::SecurityGroupIngress": Type("ec2", "AuthorizeSecurityGroupIngress", "",
        "RevokeSecurityGroupIngress", ref="SecurityGroupRules[0].SecurityGroupRuleId",
        parameters=_rule),
    "AWS::EC2::SecurityGroupEgress": Type("ec2", "AuthorizeSecurityGroupEgress", "",
        "RevokeSecurityGroupEgress", ref="SecurityGroupRules[0].SecurityGroupRuleId",
        parameters=_rule),
    "AWS::EC2::Instance": Instance("ec2", "RunInstances", "InstanceIds", "TerminateInstances",
        ref="Instances[0].InstanceId", parameters=_instance, wait="instance_running",
        gone="instance_terminated",
        settings=(
            TAGS,
            single("SecurityGroupIds", "ModifyInstanceAttribute",
                put=lambda groups: {"Groups": groups}, key="InstanceId", later=True),
        ),
        attributes={"InstanceId": "{id}",
            "AvailabilityZone": _instance_fact("Placement.AvailabilityZone"),
            "PrivateDnsName": _instance_fact("PrivateDnsName"),
            "PrivateIp": _instance_fact("PrivateIpAddress"),
            "PublicDnsName": _instance_fact("PublicDnsName"),
            "PublicIp": _instance_fact("PublicIpAddress"), "VpcId": _instance_fact("VpcId")}),
    "AWS::EC2::LaunchTemplate": Type("ec2", "CreateLaunchTemplate", "LaunchTemplateId",
        "DeleteLaunchTemplate", ref="LaunchTemplate.LaunchTemplateId", name="LaunchTemplateName",
        settings=(single("LaunchTemplateData", "CreateLaunchTemplateVersion", later=True),),
        attributes={"LaunchTemplateId": "{id}", "LatestVersionNumber": _version("Latest"),
            "DefaultVersionNumber": _version("Default")}),
    "AWS::EC2::KeyPair": KeyPair("ec2", "CreateKeyPair", "KeyName", "DeleteKeyPair",
        name="KeyName",
        settings=(_tags("Resources=KeyPairId"),),
        attributes=KEY_ATTRIBUTES),
    "AWS::EC2::EIP": Type("ec2", "AllocateAddress", "AllocationId=AllocationId",
        "ReleaseAddress", ref="PublicIp",
        settings=(_tags("Resources=AllocationId"),),
        attributes={"AllocationId": "{AllocationId}", "PublicIp": "{id}"}),
    "AWS::EC2::EIPAssociation": Type("ec2", "AssociateAddress", "AssociationId",
        "DisassociateAddress", ref="AssociationId", parameters=renamed(EIP="PublicIp")),
    "AWS::ECR::Repository": Type("ecr", "CreateRepository", "repositoryName",
        "DeleteRepository", name="RepositoryName", tidy=lambda name: name.lower(),
        parameters=lambda p: {n: v for n, v in p.items() if n != "EmptyOnDelete"},
        settings=(
            single("RepositoryPolicyText", "SetRepositoryPolicy", "DeleteRepositoryPolicy",
                lambda document: {"policyText": document}),
            single("LifecyclePolicy", "PutLifecyclePolicy", "DeleteLifecyclePolicy",
                lambda policy: {"lifecyclePolicyText": policy["LifecyclePolicyText"]}),
            single("ImageScanningConfiguration", "PutImageScanningConfiguration",
                default={"ScanOnPush": False}),
            single("ImageTagMutability", "PutImageTagMutability", default="MUTABLE"),
        ),
        attributes={"Arn": "DescribeRepositories repositoryNames repositories[0].repositoryArn",
            "RepositoryUri": "DescribeRepositories repositoryNames repositories[0].repositoryUri"}),
    "AWS::SSM::Parameter": Type("ssm", "PutParameter", "Name", "DeleteParameter", name="Name",
        tidy=lambda name: f"CFN-{name}", update="PutParameter", extra={"Overwrite": True},
        settings=(each("Tags", "AddTagsToResource", "RemoveTagsFromResource",
            lambda t: {"ResourceType": "Parameter", "Tags": [t], "TagKeys": [t["Key"]]},
            key="ResourceId"),),
        attributes={"Type": "{Type}", "Value": "{Value}"}),
    "AWS::Lambda::Function": Type("lambda", "CreateFunction", "FunctionName", "DeleteFunction",
        name="FunctionName", parameters=_function, update="UpdateFunctionConfiguration",
        settings=(
            single("Code", "UpdateFunctionCode", put=_code, later=True),
            single("ReservedConcurrentExecutions", "PutFunctionConcurrency",
                "DeleteFunctionConcurrency"),
        ),
        attributes={"Arn": "GetFunction FunctionName Configuration.FunctionArn"}),
    "AWS::Lambda::Permission": Type("lambda", "AddPermission",
        "FunctionName=FunctionName StatementId", "RemovePermission", name="StatementId"),
    "AWS::EKS::Cluster": Type("eks", "CreateCluster", "name", "DeleteCluster", name="Name",
        parameters=_logging, update="UpdateClusterConfig", wait="cluster_active",
        gone="cluster_deleted",
        attributes={"Arn": "DescribeCluster name cluster.arn",
            "Endpoint": "DescribeCluster name cluster.endpoint",
            "CertificateAuthorityData": "DescribeCluster name cluster.certificateAuthority.data",
            "OpenIdConnectIssuerUrl": "DescribeCluster name cluster.identity.oidc.issuer",
            "ClusterSecurityGroupId": f"{_VPC}.clusterSecurityGroupId"}),
    "AWS::EKS::Nodegroup": Type("eks", "CreateNodegroup",
        "clusterName=ClusterName nodegroupName=NodegroupName", "DeleteNodegroup",
        ref="{ClusterName}/{NodegroupName}", name="NodegroupName",
        update="UpdateNodegroupConfig", wait="nodegroup_active", gone="nodegroup_deleted",
        attributes={"NodegroupName": "{NodegroupName}", "ClusterName": "{ClusterName}",
            "Arn": "CreateNodegroup - nodegroup.nodegroupArn"}),
    "AWS::EKS::AccessEntry": Type("eks", "CreateAccessEntry",
        "clusterName=ClusterName principalArn=PrincipalArn", "DeleteAccessEntry",
        ref="{PrincipalArn}|{ClusterName}", update="UpdateAccessEntry",
        settings=(each("AccessPolicies", "AssociateAccessPolicy", "DisassociateAccessPolicy",
            dict),),
        attributes={"AccessEntryArn": "CreateAccessEntry - accessEntry.accessEntryArn"}),
    "AWS::CodeBuild::Project": Type("codebuild", "CreateProject", "name", "DeleteProject",
        name="Name", update="UpdateProject",
        attributes={"Arn": "BatchGetProjects names projects[0].arn"}),
    "AWS::CodePipeline::Pipeline": Type("codepipeline", "CreatePipeline", "name",
        "DeletePipeline", name="Name", parameters=_pipeline, update="UpdatePipeline",
        settings=(each("DisableInboundStageTransitions", "DisableStageTransition",
            "EnableStageTransition", lambda t: t | {"TransitionType": "Inbound"},
            key="pipelineName"),),
        attributes={"Version": "GetPipeline name to_string(pipeline.version)"}),
    "AWS::CodeCommit::Repository": Type("codecommit", "CreateRepository",
        "repositoryName=RepositoryName", "DeleteRepository",
        ref="repositoryMetadata.repositoryId",
        settings=(
            single("RepositoryDescription", "UpdateRepositoryDescription", later=True),
            single("RepositoryName", "UpdateRepositoryName", later=True),
        ),
        attributes={"Arn": "arn:aws:codecommit:{region}:{account}:{RepositoryName}",
            "Name": "{RepositoryName}", "CloneUrlHttp": _clone("Http"),
            "CloneUrlSsh": _clone("Ssh")}),
    "AWS::Events::Rule": Type("events", "PutRule", "Name", "DeleteRule", name="Name", undo=True,
        update="PutRule",
        settings=(each("Targets", "PutTargets", "RemoveTargets",
            lambda target: {"Targets": [target], "Ids": [target["Id"]]}, key="Rule"),),
        attributes={"Arn": "DescribeRule Name Arn"}),
    "AWS::Logs::LogGroup": Type("logs", "CreateLogGroup", "logGroupName", "DeleteLogGroup",
        name="LogGroupName",
        settings=(single("RetentionInDays", "PutRetentionPolicy", "DeleteRetentionPolicy"),),
        attributes={"Arn": "arn:aws:logs:{region}:{account}:log-group:{id}:*"}),
    "AWS::SNS::Topic": Type("sns", "CreateTopic", "TopicArn", "DeleteTopic", ref="TopicArn",
        name="TopicName", parameters=_topic,
        settings=(each("Subscription", "Subscribe", "", dict),),
        attributes={"TopicArn": "{id}", "TopicName": "{TopicName}"}),
    "AWS::SNS::TopicPolicy": Type("sns", "", "", "",
        settings=(_policies("Topics", "TopicArn", "SetTopicAttributes"),)),
    "AWS::SNS::Subscription": Type("sns", "Subscribe", "SubscriptionArn", "Unsubscribe",
        ref="SubscriptionArn"),
    "AWS::SQS::Queue": Type("sqs", "CreateQueue", "QueueUrl", "DeleteQueue", ref="QueueUrl",
        name="QueueName", parameters=_queue, update="SetQueueAttributes",
        attributes={"QueueUrl": "{id}", "QueueName": "{QueueName}",
            "Arn": "arn:aws:sqs:{region}:{account}:{QueueName}"}),
    "AWS::SQS::QueuePolicy": Type("sqs", "", "", "",
        settings=(_policies("Queues", "QueueUrl", "SetQueueAttributes"),)),
}
# fmt: on
CUSTOM = Custom()


def find(name: str) -> Type | Custom | None:
    """Return a type of resource, or None if the local cloud has none of this name."""
    if name.startswith("Custom::") or name == "AWS::CloudFormation::CustomResource":
        return CUSTOM
    return TYPES.get(name)
