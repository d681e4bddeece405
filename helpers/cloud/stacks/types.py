"""The types of resources that the local cloud has: the table."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from pathlib import Path

import moto
from botocore.exceptions import ClientError

from helpers.cloud.stacks.api import Caller, Failure
from helpers.cloud.stacks.custom import Custom
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


def _encryption(value: dict) -> dict:
    names = renamed(ServerSideEncryptionByDefault="ApplyServerSideEncryptionByDefault")
    rules = [names(rule) for rule in value["ServerSideEncryptionConfiguration"]]
    return {"ServerSideEncryptionConfiguration": {"Rules": rules}}


def _website(value: dict) -> dict:
    parts = {"IndexDocument": "Suffix", "ErrorDocument": "Key"}
    found = {n: {parts[n]: one} if n in parts else one for n, one in value.items()}
    return {"WebsiteConfiguration": found}


def _lifecycle(value: dict) -> dict:
    rules = [{"Filter": {"Prefix": rule.get("Prefix", "")}, **rule} for rule in value["Rules"]]
    for rule in rules:
        rule.pop("Prefix", None)
        if "ExpirationInDays" in rule:
            rule["Expiration"] = {"Days": rule.pop("ExpirationInDays")}
    return {"LifecycleConfiguration": {"Rules": rules}}


def _notification(value: dict) -> dict:
    found, bridge = dict(value), value.get("EventBridgeConfiguration", {})
    if str(bridge.get("EventBridgeEnabled", True)).lower() == "false":
        del found["EventBridgeConfiguration"]
    elif bridge:
        found["EventBridgeConfiguration"] = {}
    arns = {"Queue": "QueueArn", "Topic": "TopicArn", "Function": "LambdaFunctionArn"}
    for name in ("QueueConfigurations", "TopicConfigurations", "LambdaConfigurations"):
        if name in found:
            entries = [renamed(Event="Events", **arns)(one) for one in found.pop(name)]
            found[name.replace("Lambda", "LambdaFunction")] = entries
    return {"NotificationConfiguration": found}


def _bucket(p: dict) -> dict:
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


def _policies(kind: str) -> tuple[Setting, ...]:
    """Return the settings that users, groups and roles share."""
    arns = each("ManagedPolicyArns", f"Attach{kind}Policy", f"Detach{kind}Policy", "PolicyArn")
    return arns, each("Policies", f"Put{kind}Policy", f"Delete{kind}Policy", dict)


def _inline(kind: str) -> Setting:
    """Return the setting of a policy that is put into users, groups or roles."""

    def wanted(p: dict) -> list[dict]:
        policy = {name: p.get(name) for name in ("PolicyName", "PolicyDocument")}
        return [{f"{kind}Name": who} | policy for who in p.get(f"{kind}s", [])]

    names = f"{kind}s PolicyName PolicyDocument"
    return Setting(names, f"Put{kind}Policy", f"Delete{kind}Policy", wanted)


def _attached(kind: str) -> Setting:
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


def _permission(rule: dict) -> dict:
    """Return a rule of a security group as the API takes it."""
    found = {name: value for name, value in rule.items() if name not in SIDES}
    why = {"Description": found.pop("Description")} if "Description" in found else {}
    for name in SIDES.keys() & rule.keys():
        place, key = SIDES[name]
        found[place] = [{key: rule[name], **why}]
    return {"IpPermissions": [found]}


def _rule(p: dict) -> dict:
    group = {name: p[name] for name in ("GroupId", "GroupName") if name in p}
    return group | _permission({name: p[name] for name in p if name not in group})


def _instance(p: dict) -> dict:
    found = {"MinCount": 1, "MaxCount": 1} | p
    if "UserData" in found:
        found["UserData"] = base64.b64decode(found["UserData"]).decode()  # botocore encodes it
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
            call.wait("ec2", "instance_stopped", key)
            for name in changed:
                value = base64.b64decode(new[name]) if name == "UserData" else new[name]
                wanted = {"InstanceId": one.physical, name: {"Value": value}}
                call("ec2", "ModifyInstanceAttribute", wanted)
            call("ec2", "StartInstances", key)
        super().change(call, one, *({n: p[n] for n in p if n not in both} for p in (old, new)))


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


def _function(p: dict) -> dict:
    return p | {"Code": _code(p["Code"])} if "Code" in p else p


# --- The rest


def _pipeline(p: dict) -> dict:
    return {"pipeline": {n: p[n] for n in p if n != "Tags"}} | {n: p[n] for n in p if n == "Tags"}


def attributes(*apart: str, **names: str):
    """Return a function that makes all properties attributes, but for some."""

    def parameters(p: dict) -> dict:
        rest = {name: value for name, value in p.items() if name not in apart}
        return renamed(**names)({n: p[n] for n in apart if n in p}) | {"Attributes": rest}

    return parameters


# A table is read by its rows, so they stay as they are.
# fmt: off
TYPES: dict[str, Type] = {
    "AWS::S3::Bucket": Bucket("s3", "CreateBucket", "Bucket", "DeleteBucket", name="BucketName",
        tidy=lambda name: name.lower()[-63:], parameters=_bucket, settings=(
            single("OwnershipControls", "PutBucketOwnershipControls"),
            single("PublicAccessBlockConfiguration", "PutPublicAccessBlock", default=CLOSED),
            single("VersioningConfiguration", "PutBucketVersioning",
                default={"Status": "Suspended"}),
            single("BucketEncryption", "PutBucketEncryption", "DeleteBucketEncryption",
                _encryption),
            single("WebsiteConfiguration", "PutBucketWebsite", "DeleteBucketWebsite", _website),
            single("LifecycleConfiguration", "PutBucketLifecycleConfiguration",
                "DeleteBucketLifecycle", _lifecycle),
            single("NotificationConfiguration", "PutBucketNotificationConfiguration", "",
                _notification, default={}),
            single("Tags", "PutBucketTagging", "DeleteBucketTagging",
                lambda tags: {"Tagging": {"TagSet": tags}})),
        attributes={"Arn": "arn:aws:s3:::{id}", "DomainName": "{id}.s3.amazonaws.com",
            "RegionalDomainName": "{id}.s3.{region}.amazonaws.com",
            "WebsiteURL": "http://{id}.s3-website-{region}.amazonaws.com"}),
    "AWS::S3::BucketPolicy": Type("s3", "PutBucketPolicy", "Bucket=Bucket", "DeleteBucketPolicy",
        ref="{Bucket}", parameters=renamed(PolicyDocument="Policy"), update="PutBucketPolicy"),
    "AWS::IAM::User": Type("iam", "CreateUser", "UserName", "DeleteUser", name="UserName",
        undo=True, look="GetUser UserName User", attributes={"Arn": ".Arn"}, settings=(
            *_policies("User"), tags("TagUser", "UntagUser"),
            each("Groups", "AddUserToGroup", "RemoveUserFromGroup", "GroupName"),
            single("LoginProfile", "CreateLoginProfile", "DeleteLoginProfile", dict))),
    "AWS::IAM::Group": Type("iam", "CreateGroup", "GroupName", "DeleteGroup", name="GroupName",
        undo=True, settings=_policies("Group"), look="GetGroup GroupName Group",
        attributes={"Arn": ".Arn"}),
    "AWS::IAM::Role": Type("iam", "CreateRole", "RoleName", "DeleteRole", name="RoleName",
        undo=True, update="UpdateRole", look="GetRole RoleName Role",
        attributes={"Arn": ".Arn", "RoleId": ".RoleId"}, settings=(
            single("AssumeRolePolicyDocument", "UpdateAssumeRolePolicy", "", "PolicyDocument",
                later=True),
            *_policies("Role"), tags("TagRole", "UntagRole"))),
    "AWS::IAM::Policy": Type("iam", "", "", "", undo=True,
        settings=(_inline("User"), _inline("Group"), _inline("Role"))),
    "AWS::IAM::ManagedPolicy": Type("iam", "CreatePolicy", "PolicyArn", "DeletePolicy",
        ref="{Policy[Arn]}", name="ManagedPolicyName", undo=True,
        parameters=renamed(ManagedPolicyName="PolicyName"), attributes={"PolicyArn": "{id}"},
        settings=(
            single("PolicyDocument", "CreatePolicyVersion", "",
                lambda document: {"PolicyDocument": document, "SetAsDefault": True}, later=True),
            _attached("User"), _attached("Group"), _attached("Role"))),
    "AWS::IAM::InstanceProfile": Type("iam", "CreateInstanceProfile", "InstanceProfileName",
        "DeleteInstanceProfile", name="InstanceProfileName", undo=True,
        look="GetInstanceProfile InstanceProfileName InstanceProfile",
        attributes={"Arn": ".Arn"}, settings=(each("Roles", "AddRoleToInstanceProfile",
            "RemoveRoleFromInstanceProfile", "RoleName"),)),
    "AWS::IAM::AccessKey": Type("iam", "CreateAccessKey", "UserName=UserName AccessKeyId",
        "DeleteAccessKey", ref="{AccessKey[AccessKeyId]}",
        settings=(single("Status", "UpdateAccessKey", default="Active"),),
        attributes={"SecretAccessKey": "{AccessKey[SecretAccessKey]}"}),
    "AWS::EC2::VPC": Type("ec2", "CreateVpc", "VpcId", "DeleteVpc", ref="{Vpc[VpcId]}",
        attributes={"VpcId": "{id}", "CidrBlock": "{CidrBlock}"}, settings=(
            TAGS,
            single("EnableDnsSupport", "ModifyVpcAttribute", "",
                lambda on: {"EnableDnsSupport": {"Value": on}}, default=True),
            single("EnableDnsHostnames", "ModifyVpcAttribute", "",
                lambda on: {"EnableDnsHostnames": {"Value": on}}, default=False))),
    "AWS::EC2::Subnet": Type("ec2", "CreateSubnet", "SubnetId", "DeleteSubnet",
        ref="{Subnet[SubnetId]}", look="DescribeSubnets SubnetIds Subnets[0]",
        attributes={"SubnetId": "{id}", "VpcId": "{VpcId}", "CidrBlock": "{CidrBlock}",
            "AvailabilityZone": ".AvailabilityZone"},
        settings=(TAGS, single("MapPublicIpOnLaunch", "ModifySubnetAttribute", "",
            lambda on: {"MapPublicIpOnLaunch": {"Value": on}}, default=False))),
    "AWS::EC2::InternetGateway": Type("ec2", "CreateInternetGateway", "InternetGatewayId",
        "DeleteInternetGateway", ref="{InternetGateway[InternetGatewayId]}", settings=(TAGS,),
        attributes={"InternetGatewayId": "{id}"}),
    "AWS::EC2::VPCGatewayAttachment": Type("ec2", "AttachInternetGateway",
        "InternetGatewayId=InternetGatewayId VpcId=VpcId", "DetachInternetGateway",
        ref="IGW|{VpcId}"),
    "AWS::EC2::RouteTable": Type("ec2", "CreateRouteTable", "RouteTableId", "DeleteRouteTable",
        ref="{RouteTable[RouteTableId]}", settings=(TAGS,),
        attributes={"RouteTableId": "{id}"}),
    "AWS::EC2::Route": Type("ec2", "CreateRoute",
        "RouteTableId=RouteTableId DestinationCidrBlock=DestinationCidrBlock", "DeleteRoute",
        ref="{RouteTableId}|{DestinationCidrBlock}", update="ReplaceRoute"),
    "AWS::EC2::SubnetRouteTableAssociation": Type("ec2", "AssociateRouteTable", "AssociationId",
        "DisassociateRouteTable", ref="{AssociationId}", attributes={"Id": "{id}"}),
    "AWS::EC2::SecurityGroup": SecurityGroup("ec2", "CreateSecurityGroup", "GroupId",
        "DeleteSecurityGroup", ref="{GroupId}", name="GroupName",
        parameters=renamed(GroupDescription="Description"),
        look="DescribeSecurityGroups GroupIds SecurityGroups[0]",
        attributes={"GroupId": "{id}", "VpcId": ".VpcId"}, settings=(
            TAGS,
            each("SecurityGroupIngress", "AuthorizeSecurityGroupIngress",
                "RevokeSecurityGroupIngress", _permission),
            each("SecurityGroupEgress", "AuthorizeSecurityGroupEgress",
                "RevokeSecurityGroupEgress", _permission, default=[EVERYWHERE]))),
    "AWS::EC2::SecurityGroupIngress": Type("ec2", "AuthorizeSecurityGroupIngress", "",
        "RevokeSecurityGroupIngress", ref="{SecurityGroupRules[0][SecurityGroupRuleId]}",
        parameters=_rule),
    "AWS::EC2::SecurityGroupEgress": Type("ec2", "AuthorizeSecurityGroupEgress", "",
        "RevokeSecurityGroupEgress", ref="{SecurityGroupRules[0][SecurityGroupRuleId]}",
        parameters=_rule),
    "AWS::EC2::Instance": Instance("ec2", "RunInstances", "InstanceIds", "TerminateInstances",
        ref="{Instances[0][InstanceId]}", parameters=_instance, wait="instance_running",
        gone="instance_terminated",
        settings=(TAGS, single("SecurityGroupIds", "ModifyInstanceAttribute", "", "Groups",
            key="InstanceId", later=True)),
        look="DescribeInstances InstanceIds Reservations[0].Instances[0]",
        attributes={"InstanceId": "{id}", "AvailabilityZone": ".Placement.AvailabilityZone",
            "PrivateDnsName": ".PrivateDnsName", "PrivateIp": ".PrivateIpAddress",
            "PublicDnsName": ".PublicDnsName", "PublicIp": ".PublicIpAddress",
            "VpcId": ".VpcId"}),
    "AWS::EC2::LaunchTemplate": Type("ec2", "CreateLaunchTemplate", "LaunchTemplateId",
        "DeleteLaunchTemplate", ref="{LaunchTemplate[LaunchTemplateId]}",
        name="LaunchTemplateName",
        settings=(single("LaunchTemplateData", "CreateLaunchTemplateVersion", later=True),),
        look="DescribeLaunchTemplates LaunchTemplateIds LaunchTemplates[0]",
        attributes={"LaunchTemplateId": "{id}", "LatestVersionNumber": ".LatestVersionNumber",
            "DefaultVersionNumber": ".DefaultVersionNumber"}),
    "AWS::ECR::Repository": Type("ecr", "CreateRepository", "repositoryName",
        "DeleteRepository", name="RepositoryName", tidy=lambda name: name.lower(),
        parameters=lambda p: {n: v for n, v in p.items() if n != "EmptyOnDelete"},
        settings=(
            single("RepositoryPolicyText", "SetRepositoryPolicy", "DeleteRepositoryPolicy",
                "policyText"),
            single("LifecyclePolicy", "PutLifecyclePolicy", "DeleteLifecyclePolicy", dict),
            single("ImageScanningConfiguration", "PutImageScanningConfiguration",
                default={"ScanOnPush": False}),
            single("ImageTagMutability", "PutImageTagMutability", default="MUTABLE")),
        look="DescribeRepositories repositoryNames repositories[0]",
        attributes={"Arn": ".repositoryArn", "RepositoryUri": ".repositoryUri"}),
    "AWS::SSM::Parameter": Type("ssm", "PutParameter", "Name", "DeleteParameter", name="Name",
        tidy=lambda name: f"CFN-{name}", update="PutParameter", extra={"Overwrite": True},
        settings=(tags("AddTagsToResource", "RemoveTagsFromResource",
            {"ResourceType": "Parameter"}, key="ResourceId"),),
        attributes={"Type": "{Type}", "Value": "{Value}"}),
    "AWS::Lambda::Function": Type("lambda", "CreateFunction", "FunctionName", "DeleteFunction",
        name="FunctionName", parameters=_function, update="UpdateFunctionConfiguration",
        settings=(single("Code", "UpdateFunctionCode", "", _code, later=True),),
        look="GetFunction FunctionName Configuration", attributes={"Arn": ".FunctionArn"}),
    "AWS::Lambda::Permission": Type("lambda", "AddPermission",
        "FunctionName=FunctionName StatementId", "RemovePermission", name="StatementId"),
    "AWS::EKS::Cluster": Type("eks", "CreateCluster", "name", "DeleteCluster", name="Name",
        update="UpdateClusterConfig", wait="cluster_active", gone="cluster_deleted",
        look="DescribeCluster name cluster",
        attributes={"Arn": ".arn", "Endpoint": ".endpoint",
            "CertificateAuthorityData": ".certificateAuthority.data",
            "OpenIdConnectIssuerUrl": ".identity.oidc.issuer",
            "ClusterSecurityGroupId": ".resourcesVpcConfig.clusterSecurityGroupId"}),
    "AWS::EKS::Nodegroup": Type("eks", "CreateNodegroup",
        "clusterName=ClusterName nodegroupName=NodegroupName", "DeleteNodegroup",
        ref="{ClusterName}/{NodegroupName}", name="NodegroupName",
        update="UpdateNodegroupConfig", wait="nodegroup_active", gone="nodegroup_deleted",
        attributes={"NodegroupName": "{NodegroupName}", "ClusterName": "{ClusterName}",
            "Arn": "{nodegroup[nodegroupArn]}"}),
    "AWS::EKS::AccessEntry": Type("eks", "CreateAccessEntry",
        "clusterName=ClusterName principalArn=PrincipalArn", "DeleteAccessEntry",
        ref="{PrincipalArn}|{ClusterName}", update="UpdateAccessEntry",
        settings=(each("AccessPolicies", "AssociateAccessPolicy", "DisassociateAccessPolicy",
            dict),),
        attributes={"AccessEntryArn": "{accessEntry[accessEntryArn]}"}),
    "AWS::CodeBuild::Project": Type("codebuild", "CreateProject", "name", "DeleteProject",
        name="Name", update="UpdateProject", look="BatchGetProjects names projects[0]",
        attributes={"Arn": ".arn"}),
    "AWS::CodePipeline::Pipeline": Type("codepipeline", "CreatePipeline", "name",
        "DeletePipeline", name="Name", parameters=_pipeline, update="UpdatePipeline",
        look="GetPipeline name pipeline", attributes={"Version": ".version"}),
    "AWS::CodeCommit::Repository": Type("codecommit", "CreateRepository",
        "repositoryName=RepositoryName", "DeleteRepository", update="UpdateRepositoryDescription",
        ref="{repositoryMetadata[repositoryId]}",
        look="GetRepository repositoryName=RepositoryName repositoryMetadata",
        attributes={"Arn": ".Arn", "Name": "{RepositoryName}", "CloneUrlHttp": ".cloneUrlHttp",
            "CloneUrlSsh": ".cloneUrlSsh"}),
    "AWS::Events::Rule": Type("events", "PutRule", "Name", "DeleteRule", name="Name", undo=True,
        update="PutRule", look="DescribeRule Name @", attributes={"Arn": ".Arn"},
        settings=(each("Targets", "PutTargets", "RemoveTargets",
            lambda target: {"Targets": [target], "Ids": [target["Id"]]}, key="Rule"),)),
    "AWS::Logs::LogGroup": Type("logs", "CreateLogGroup", "logGroupName", "DeleteLogGroup",
        name="LogGroupName",
        settings=(single("RetentionInDays", "PutRetentionPolicy", "DeleteRetentionPolicy"),),
        attributes={"Arn": "arn:aws:logs:{region}:{account}:log-group:{id}:*"}),
    "AWS::SNS::Topic": Type("sns", "CreateTopic", "TopicArn", "DeleteTopic", ref="{TopicArn}",
        name="TopicName", parameters=attributes("TopicName", "Tags", TopicName="Name"),
        settings=(each("Subscription", "Subscribe", "", dict),),
        attributes={"TopicArn": "{id}", "TopicName": "{TopicName}"}),
    "AWS::SQS::Queue": Type("sqs", "CreateQueue", "QueueUrl", "DeleteQueue", ref="{QueueUrl}",
        name="QueueName", parameters=attributes("QueueName", "Tags"), update="SetQueueAttributes",
        attributes={"QueueUrl": "{id}", "QueueName": "{QueueName}",
            "Arn": "arn:aws:sqs:{region}:{account}:{QueueName}"}),
}
# fmt: on
CUSTOM = Custom()


def find(name: str) -> Type | Custom | None:
    """Return a type of resource, or None if the local cloud has none of this name."""
    if name.startswith("Custom::") or name == "AWS::CloudFormation::CustomResource":
        return CUSTOM
    return TYPES.get(name)
