"""The types of resources that the local cloud has: the table."""

from __future__ import annotations

from helpers.cloud.stacks import codecommit, eks
from helpers.cloud.stacks import properties as p
from helpers.cloud.stacks.custom import Custom
from helpers.cloud.stacks.properties import CLOSED, EVERYWHERE, TAGS, each, single, tags
from helpers.cloud.stacks.resources import Type

# A table is read by its rows, so they stay as they are.
# fmt: off
TYPES: dict[str, Type] = {
    "AWS::S3::Bucket": p.Bucket("s3", "CreateBucket", "Bucket", "DeleteBucket", name="BucketName",
        tidy=lambda name: name.lower()[-63:], parameters=p.bucket,
        gives="Arn=arn:aws:s3:::{id} DomainName={id}.s3.amazonaws.com "
            "RegionalDomainName={id}.s3.{region}.amazonaws.com "
            "WebsiteURL=http://{id}.s3-website-{region}.amazonaws.com", settings=(
            single("OwnershipControls", "PutBucketOwnershipControls", later=True),
            single("PublicAccessBlockConfiguration", "PutPublicAccessBlock", default=CLOSED),
            single("VersioningConfiguration", "PutBucketVersioning",
                default={"Status": "Suspended"}),
            single("BucketEncryption", "PutBucketEncryption", "DeleteBucketEncryption",
                p.encryption),
            single("WebsiteConfiguration", "PutBucketWebsite", "DeleteBucketWebsite", p.website),
            single("LifecycleConfiguration", "PutBucketLifecycleConfiguration",
                "DeleteBucketLifecycle", p.lifecycle),
            single("NotificationConfiguration", "PutBucketNotificationConfiguration", "",
                p.notification, default={}),
            single("Tags", "PutBucketTagging", "DeleteBucketTagging",
                lambda tags: {"Tagging": {"TagSet": tags}}))),
    "AWS::S3::BucketPolicy": Type("s3", "PutBucketPolicy", "Bucket=Bucket", "DeleteBucketPolicy",
        ref="{Bucket}", parameters=p.renamed(PolicyDocument="Policy"), update="PutBucketPolicy"),
    "AWS::IAM::User": Type("iam", "CreateUser", "UserName", "DeleteUser", name="UserName",
        undo=True, look="GetUser UserName User", gives="Arn=.Arn", settings=(
            *p.policies("User"), tags("TagUser", "UntagUser"),
            each("Groups", "AddUserToGroup", "RemoveUserFromGroup", "GroupName"),
            single("LoginProfile", "CreateLoginProfile", "DeleteLoginProfile", dict))),
    "AWS::IAM::Group": Type("iam", "CreateGroup", "GroupName", "DeleteGroup", name="GroupName",
        undo=True, look="GetGroup GroupName Group", gives="Arn=.Arn", settings=p.policies("Group")),
    "AWS::IAM::Role": Type("iam", "CreateRole", "RoleName", "DeleteRole", name="RoleName",
        undo=True, update="UpdateRole", look="GetRole RoleName Role",
        gives="Arn=.Arn RoleId=.RoleId", settings=(
            single("AssumeRolePolicyDocument", "UpdateAssumeRolePolicy", "", "PolicyDocument",
                later=True),
            *p.policies("Role"), tags("TagRole", "UntagRole"))),
    "AWS::IAM::Policy": Type("iam", "", "", "", undo=True, settings=(
            p.inline("User"), p.inline("Group"), p.inline("Role"))),
    "AWS::IAM::ManagedPolicy": Type("iam", "CreatePolicy", "PolicyArn", "DeletePolicy",
        ref="{Policy[Arn]}", name="ManagedPolicyName", undo=True,
        parameters=p.renamed(ManagedPolicyName="PolicyName"), gives="PolicyArn={id}", settings=(
            single("PolicyDocument", "CreatePolicyVersion", "",
                lambda document: {"PolicyDocument": document, "SetAsDefault": True}, later=True),
            p.attached("User"), p.attached("Group"), p.attached("Role"))),
    "AWS::IAM::InstanceProfile": Type("iam", "CreateInstanceProfile", "InstanceProfileName",
        "DeleteInstanceProfile", name="InstanceProfileName", undo=True,
        look="GetInstanceProfile InstanceProfileName InstanceProfile", gives="Arn=.Arn",
        settings=(each("Roles", "AddRoleToInstanceProfile", "RemoveRoleFromInstanceProfile",
            "RoleName"),)),
    "AWS::IAM::AccessKey": Type("iam", "CreateAccessKey", "UserName=UserName AccessKeyId",
        "DeleteAccessKey", ref="{AccessKey[AccessKeyId]}",
        gives="SecretAccessKey={AccessKey[SecretAccessKey]}",
        settings=(single("Status", "UpdateAccessKey", default="Active"),)),
    "AWS::EC2::VPC": Type("ec2", "CreateVpc", "VpcId", "DeleteVpc", ref="{Vpc[VpcId]}",
        gives="VpcId={id} CidrBlock={CidrBlock}", settings=(
            TAGS,
            single("EnableDnsSupport", "ModifyVpcAttribute", "",
                lambda on: {"EnableDnsSupport": {"Value": on}}, default=True),
            single("EnableDnsHostnames", "ModifyVpcAttribute", "",
                lambda on: {"EnableDnsHostnames": {"Value": on}}, default=False))),
    "AWS::EC2::Subnet": Type("ec2", "CreateSubnet", "SubnetId", "DeleteSubnet",
        ref="{Subnet[SubnetId]}", look="DescribeSubnets SubnetIds Subnets[0]",
        gives="SubnetId={id} VpcId={VpcId} CidrBlock={CidrBlock} "
            "AvailabilityZone=.AvailabilityZone", settings=(
            TAGS,
            single("MapPublicIpOnLaunch", "ModifySubnetAttribute", "",
                lambda on: {"MapPublicIpOnLaunch": {"Value": on}}, default=False))),
    "AWS::EC2::InternetGateway": Type("ec2", "CreateInternetGateway", "InternetGatewayId",
        "DeleteInternetGateway", ref="{InternetGateway[InternetGatewayId]}",
        gives="InternetGatewayId={id}", settings=(TAGS,)),
    "AWS::EC2::VPCGatewayAttachment": Type("ec2", "AttachInternetGateway",
        "InternetGatewayId=InternetGatewayId VpcId=VpcId", "DetachInternetGateway",
        ref="IGW|{VpcId}"),
    "AWS::EC2::RouteTable": Type("ec2", "CreateRouteTable", "RouteTableId", "DeleteRouteTable",
        ref="{RouteTable[RouteTableId]}", gives="RouteTableId={id}", settings=(TAGS,)),
    "AWS::EC2::Route": Type("ec2", "CreateRoute",
        "RouteTableId=RouteTableId DestinationCidrBlock=DestinationCidrBlock", "DeleteRoute",
        ref="{RouteTableId}|{DestinationCidrBlock}", update="ReplaceRoute"),
    "AWS::EC2::SubnetRouteTableAssociation": Type("ec2", "AssociateRouteTable", "AssociationId",
        "DisassociateRouteTable", ref="{AssociationId}", gives="Id={id}"),
    "AWS::EC2::SecurityGroup": p.SecurityGroup("ec2", "CreateSecurityGroup", "GroupId",
        "DeleteSecurityGroup", ref="{GroupId}", name="GroupName",
        parameters=p.renamed(GroupDescription="Description"),
        look="DescribeSecurityGroups GroupIds SecurityGroups[0]",
        gives="GroupId={id} VpcId=.VpcId", settings=(
            TAGS,
            each("SecurityGroupIngress", "AuthorizeSecurityGroupIngress",
                "RevokeSecurityGroupIngress", p.permission),
            each("SecurityGroupEgress", "AuthorizeSecurityGroupEgress",
                "RevokeSecurityGroupEgress", p.permission, default=[EVERYWHERE]))),
    "AWS::EC2::SecurityGroupIngress": Type("ec2", "AuthorizeSecurityGroupIngress", "",
        "RevokeSecurityGroupIngress", ref="{SecurityGroupRules[0][SecurityGroupRuleId]}",
        parameters=p.rule),
    "AWS::EC2::SecurityGroupEgress": Type("ec2", "AuthorizeSecurityGroupEgress", "",
        "RevokeSecurityGroupEgress", ref="{SecurityGroupRules[0][SecurityGroupRuleId]}",
        parameters=p.rule),
    "AWS::EC2::Instance": p.Instance("ec2", "RunInstances", "InstanceIds", "TerminateInstances",
        ref="{Instances[0][InstanceId]}", parameters=p.instance, wait="InstanceRunning",
        gone="InstanceTerminated",
        look="DescribeInstances InstanceIds Reservations[0].Instances[0]",
        gives="InstanceId={id} AvailabilityZone=.Placement.AvailabilityZone "
            "PrivateDnsName=.PrivateDnsName PrivateIp=.PrivateIpAddress "
            "PublicDnsName=.PublicDnsName PublicIp=.PublicIpAddress VpcId=.VpcId", settings=(
            TAGS,
            single("SecurityGroupIds", "ModifyInstanceAttribute", "", "Groups", key="InstanceId",
                later=True))),
    "AWS::ECR::Repository": Type("ecr", "CreateRepository", "repositoryName", "DeleteRepository",
        name="RepositoryName", tidy=lambda name: name.lower(),
        parameters=lambda p: {n: v for n, v in p.items() if n != "EmptyOnDelete"},
        look="DescribeRepositories repositoryNames repositories[0]",
        gives="Arn=.repositoryArn RepositoryUri=.repositoryUri", settings=(
            single("RepositoryPolicyText", "SetRepositoryPolicy", "DeleteRepositoryPolicy",
                "policyText"),
            single("LifecyclePolicy", "PutLifecyclePolicy", "DeleteLifecyclePolicy", dict),
            single("ImageScanningConfiguration", "PutImageScanningConfiguration",
                default={"ScanOnPush": False}),
            single("ImageTagMutability", "PutImageTagMutability", default="MUTABLE"))),
    "AWS::SSM::Parameter": Type("ssm", "PutParameter", "Name", "DeleteParameter", name="Name",
        tidy=lambda name: f"CFN-{name}", update="PutParameter", extra={"Overwrite": True},
        gives="Type={Type} Value={Value}",
        settings=(tags("AddTagsToResource", "RemoveTagsFromResource",
            {"ResourceType": "Parameter"}, key="ResourceId"),)),
    "AWS::Lambda::Function": Type("lambda", "CreateFunction", "FunctionName", "DeleteFunction",
        name="FunctionName", parameters=p.function, update="UpdateFunctionConfiguration",
        look="GetFunction FunctionName Configuration", gives="Arn=.FunctionArn",
        settings=(single("Code", "UpdateFunctionCode", "", p.code, later=True),)),
    "AWS::Lambda::Permission": Type("lambda", "AddPermission",
        "FunctionName=FunctionName StatementId", "RemovePermission", name="StatementId"),
    "AWS::EKS::Cluster": Type("eks", "CreateCluster", "name", "DeleteCluster", name="Name",
        parameters=eks.cluster, wait="ClusterActive", gone="ClusterDeleted",
        look="DescribeCluster name cluster",
        gives="Arn=.arn Endpoint=.endpoint CertificateAuthorityData=.certificateAuthority.data "
            "OpenIdConnectIssuerUrl=.identity.oidc.issuer "
            "ClusterSecurityGroupId=.resourcesVpcConfig.clusterSecurityGroupId", settings=(
            tags("TagResource", "UntagResource", key="resourceArn=cluster[arn]"),
            single("AccessConfig", "UpdateClusterConfig", "", eks.access, later=True))),
    "AWS::EKS::Nodegroup": eks.Nodegroup("eks", "CreateNodegroup",
        "clusterName=ClusterName nodegroupName=NodegroupName", "DeleteNodegroup",
        ref="{ClusterName}/{NodegroupName}", name="NodegroupName",
        wait="NodegroupActive", gone="NodegroupDeleted",
        gives="Id={id} NodegroupName={NodegroupName} ClusterName={ClusterName} "
            "Arn={nodegroup[nodegroupArn]}"),
    "AWS::EKS::AccessEntry": Type("eks", "CreateAccessEntry",
        "clusterName=ClusterName principalArn=PrincipalArn", "DeleteAccessEntry",
        ref="{PrincipalArn}|{ClusterName}", update="UpdateAccessEntry",
        gives="AccessEntryArn={accessEntry[accessEntryArn]}",
        settings=(each("AccessPolicies", "AssociateAccessPolicy", "DisassociateAccessPolicy",
            dict),)),
    "AWS::CodeBuild::Project": Type("codebuild", "CreateProject", "name", "DeleteProject",
        name="Name", parameters=p.project, update="UpdateProject",
        look="BatchGetProjects names projects[0]", gives="Arn=.arn"),
    "AWS::CodePipeline::Pipeline": p.Pipeline("codepipeline", "CreatePipeline", "name",
        "DeletePipeline", name="Name", parameters=p.pipeline, update="UpdatePipeline",
        look="GetPipeline name pipeline", gives="Version=.version", settings=(
            each("DisableInboundStageTransitions", "DisableStageTransition",
                "EnableStageTransition", p.closed, key="pipelineName"),)),
    "AWS::CodeCommit::Repository": codecommit.Repository("codecommit", "CreateRepository",
        "repositoryName=RepositoryName", "DeleteRepository", parameters=codecommit.repository,
        ref="{repositoryMetadata[repositoryId]}",
        look="GetRepository repositoryName=RepositoryName repositoryMetadata",
        gives="Arn=.Arn Name={RepositoryName} CloneUrlHttp=.cloneUrlHttp CloneUrlSsh=.cloneUrlSsh"),
    "AWS::CloudTrail::Trail": Type("cloudtrail", "CreateTrail", "Name", "DeleteTrail",
        name="TrailName", parameters=p.renamed(TrailName="Name"), gives="Arn={TrailARN}",
        settings=(
            single("IsLogging", "StartLogging", "", lambda on: {}),
            single("EventSelectors", "PutEventSelectors", key="TrailName"))),
    "AWS::Events::Rule": Type("events", "PutRule", "Name", "DeleteRule", name="Name", undo=True,
        update="PutRule", look="DescribeRule Name @", gives="Arn=.Arn",
        settings=(each("Targets", "PutTargets", "RemoveTargets",
            lambda target: {"Targets": [target], "Ids": [target["Id"]]}, key="Rule"),)),
    "AWS::Logs::LogGroup": Type("logs", "CreateLogGroup", "logGroupName", "DeleteLogGroup",
        name="LogGroupName", gives="Arn=arn:aws:logs:{region}:{account}:log-group:{id}:*",
        settings=(single("RetentionInDays", "PutRetentionPolicy", "DeleteRetentionPolicy"),)),
    "AWS::SNS::Topic": Type("sns", "CreateTopic", "TopicArn", "DeleteTopic", ref="{TopicArn}",
        name="TopicName", parameters=p.topic,
        gives="TopicArn={id} TopicName={TopicName}",
        settings=(each("Subscription", "Subscribe", "", dict),)),
}
# fmt: on
CUSTOM = Custom()


def find(name: str) -> Type | Custom | None:
    """Return a type of resource, or None if the local cloud has none of this name."""
    if name.startswith("Custom::") or name == "AWS::CloudFormation::CustomResource":
        return CUSTOM
    return TYPES.get(name)
