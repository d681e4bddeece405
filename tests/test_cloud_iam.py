"""IAM and STS on the local cloud: what is denied, what is allowed, and what it says."""

import io
import json
import os
import subprocess
import sys
import zipfile
from datetime import timedelta
from email.utils import parsedate_to_datetime

import boto3
import pytest
from asking import refused
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from helpers import cloud
from helpers.cloud import policies

ACCOUNT = "123456789012"
HERE = f"us-east-1:{ACCOUNT}"


@pytest.fixture(scope="module", autouse=True)
def aws(shared_home):
    return cloud.start()


@pytest.fixture
def iam(aws):
    return boto3.client("iam")


class User:
    """Somebody with an access key and the policies that a test gives."""

    def __init__(self, name):
        self.iam, self.name = boto3.client("iam"), name
        self.arn = self.iam.create_user(UserName=name)["User"]["Arn"]
        key = self.iam.create_access_key(UserName=name)["AccessKey"]
        self.session = boto3.Session(key["AccessKeyId"], key["SecretAccessKey"])
        self.client = self.session.client

    def may(self, *statements):
        where = {"UserName": self.name, "PolicyName": "p"}
        if statements:
            self.iam.put_user_policy(**where, PolicyDocument=document(*statements))
        elif self.iam.list_user_policies(UserName=self.name)["PolicyNames"]:
            self.iam.delete_user_policy(**where)

    def sh(self, command):
        """Run a command with the user's key; return exit status and what it says."""
        key = self.session.get_credentials()
        theirs = {"AWS_ACCESS_KEY_ID": key.access_key, "AWS_SECRET_ACCESS_KEY": key.secret_key}
        run = {"env": os.environ | theirs, "capture_output": True, "text": True}
        done = subprocess.run(["bash", "-c", command], **run)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def user(aws, request):
    return User(f"u{abs(hash(request.node.nodeid)) % 10**10}")


def allow(action, resource="*", effect="Allow", **more):
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def deny(action, resource="*", **more):
    return allow(action, resource, "Deny", **more)


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trusting(**principal):
    one = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal}
    return json.dumps({"Version": "2012-10-17", "Statement": [one]})


def zipped():
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as file:
        file.writestr("index.py", "def handler(event, context): return 1")
    return body.getvalue()


# --- Denied, then allowed by the smallest policy, for every service that the course uses


@pytest.fixture(scope="module")
def things(aws):
    """What the table below acts on."""
    boto3.client("s3").create_bucket(Bucket="things")
    boto3.client("s3").put_object(Bucket="things", Key="k", Body=b"hi")
    boto3.client("ssm").put_parameter(Name="/app/p", Value="v", Type="String")
    boto3.client("ecr").create_repository(repositoryName="app")
    boto3.client("codecommit").create_repository(repositoryName="code")
    boto3.client("events").put_rule(Name="daily", EventPattern='{"source": ["me"]}')
    boto3.client("logs").create_log_group(logGroupName="/app")
    queue = boto3.client("sqs").create_queue(QueueName="jobs")["QueueUrl"]
    boto3.client("sns").create_topic(Name="news")
    boto3.client("secretsmanager").create_secret(Name="db", SecretString="x")
    boto3.client("iam").create_user(UserName="other", Path="/team/")
    group = boto3.client("ec2").create_security_group(GroupName="web", Description="d")
    return {"group": group["GroupId"], "queue": queue}


IN = "--cidr 0.0.0.0/0 --port 80 --protocol tcp"
# client, call, arguments, the same for the command, action, resource, code
TABLE = [
    ("s3", "list_buckets", {}, "s3api list-buckets", "s3:ListAllMyBuckets", "*"),
    (
        "s3",
        "get_object",
        {"Bucket": "things", "Key": "k"},
        "s3api get-object --bucket things --key k /dev/null",
        "s3:GetObject",
        "arn:aws:s3:::things/k",
    ),
    (
        "s3",
        "list_objects_v2",
        {"Bucket": "things"},
        "s3 ls s3://things",
        "s3:ListBucket",
        "arn:aws:s3:::things",
    ),
    ("iam", "list_users", {}, "iam list-users", "iam:ListUsers", f"arn:aws:iam::{ACCOUNT}:user/"),
    (
        "iam",
        "list_attached_user_policies",
        {"UserName": "other"},
        "iam list-attached-user-policies --user-name other",
        "iam:ListAttachedUserPolicies",
        f"arn:aws:iam::{ACCOUNT}:user/team/other",
    ),
    ("ec2", "describe_instances", {}, "ec2 describe-instances", "ec2:DescribeInstances", "*"),
    (
        "ec2",
        "authorize_security_group_ingress",
        {
            "GroupName": "web",
            "IpProtocol": "tcp",
            "FromPort": 1,
            "ToPort": 1,
            "CidrIp": "0.0.0.0/0",
        },
        f"ec2 authorize-security-group-ingress --group-name web {IN}",
        "ec2:AuthorizeSecurityGroupIngress",
        f"arn:aws:ec2:{HERE}:security-group/{{group}}",
    ),
    (
        "ec2",
        "create_key_pair",
        {"KeyName": "k1"},
        "ec2 create-key-pair --key-name k2",
        "ec2:CreateKeyPair",
        f"arn:aws:ec2:{HERE}:key-pair/*",
    ),
    (
        "ssm",
        "get_parameter",
        {"Name": "/app/p"},
        "ssm get-parameter --name /app/p",
        "ssm:GetParameter",
        f"arn:aws:ssm:{HERE}:parameter/app/p",
    ),
    ("lambda", "list_functions", {}, "lambda list-functions", "lambda:ListFunctions", "*"),
    (
        "ecr",
        "list_images",
        {"repositoryName": "app"},
        "ecr list-images --repository-name app",
        "ecr:ListImages",
        f"arn:aws:ecr:{HERE}:repository/app",
    ),
    (
        "ecr",
        "describe_repositories",
        {},
        "ecr describe-repositories",
        "ecr:DescribeRepositories",
        f"arn:aws:ecr:{HERE}:repository/*",
    ),
    ("eks", "list_clusters", {}, "eks list-clusters", "eks:ListClusters", "*"),
    (
        "codebuild",
        "batch_get_projects",
        {"names": ["site"]},
        "codebuild batch-get-projects --names site",
        "codebuild:BatchGetProjects",
        f"arn:aws:codebuild:{HERE}:project/site",
    ),
    (
        "codepipeline",
        "list_pipelines",
        {},
        "codepipeline list-pipelines",
        "codepipeline:ListPipelines",
        "*",
    ),
    (
        "codecommit",
        "get_repository",
        {"repositoryName": "code"},
        "codecommit get-repository --repository-name code",
        "codecommit:GetRepository",
        f"arn:aws:codecommit:{HERE}:code",
    ),
    (
        "cloudformation",
        "describe_stacks",
        {},
        "cloudformation describe-stacks",
        "cloudformation:DescribeStacks",
        f"arn:aws:cloudformation:{HERE}:stack/*/*",
    ),
    (
        "events",
        "describe_rule",
        {"Name": "daily"},
        "events describe-rule --name daily",
        "events:DescribeRule",
        f"arn:aws:events:{HERE}:rule/daily",
    ),
    (
        "logs",
        "describe_log_streams",
        {"logGroupName": "/app"},
        "logs describe-log-streams --log-group-name /app",
        "logs:DescribeLogStreams",
        f"arn:aws:logs:{HERE}:log-group:/app:log-stream:",
    ),
    (
        "sqs",
        "receive_message",
        {"QueueUrl": "{queue}"},
        "sqs receive-message --queue-url {queue}",
        "sqs:ReceiveMessage",
        f"arn:aws:sqs:{HERE}:jobs",
    ),
    (
        "sns",
        "publish",
        {"TopicArn": f"arn:aws:sns:{HERE}:news", "Message": "m"},
        f"sns publish --topic-arn arn:aws:sns:{HERE}:news --message m",
        "sns:Publish",
        f"arn:aws:sns:{HERE}:news",
    ),
    (
        "secretsmanager",
        "get_secret_value",
        {"SecretId": "db"},
        "secretsmanager get-secret-value --secret-id db",
        "secretsmanager:GetSecretValue",
        f"arn:aws:secretsmanager:{HERE}:secret:db-??????",
    ),
    (
        "elbv2",
        "describe_load_balancers",
        {},
        "elbv2 describe-load-balancers",
        "elasticloadbalancing:DescribeLoadBalancers",
        "*",
    ),
    (
        "stepfunctions",
        "list_state_machines",
        {},
        "stepfunctions list-state-machines",
        "states:ListStateMachines",
        "*",
    ),
]
CODES = {"ec2": "UnauthorizedOperation"} | dict.fromkeys(
    ["s3", "iam", "cloudformation", "sns", "elbv2"], "AccessDenied"
)


@pytest.mark.parametrize(
    ("service", "call", "arguments", "command", "action", "resource"),
    TABLE,
    ids=[row[4] for row in TABLE],
)
def test_denied_until_allowed(things, user, service, call, arguments, command, action, resource):
    resource, command = resource.format(**things), command.format(**things)
    if "QueueUrl" in arguments:
        arguments = {"QueueUrl": things["queue"]}
    code = CODES.get(service, "AccessDeniedException")
    run = getattr(user.client(service), call)
    user.may(allow("dynamodb:*"))
    said = refused(code, run, **arguments)
    assert f"User: {user.arn} is not authorized to perform: {action}" in said
    assert said.endswith(f"because no identity-based policy allows the {action} action")
    if service in ("s3", "ec2", "iam", "ssm", "eks"):  # one of each protocol
        status, text = user.sh(f"aws {command}")
        assert status and f"({code})" in text and said[-60:] in text
    user.may(allow(action, resource))
    run(**arguments)
    status, text = user.sh(f"aws {command}")
    assert status == 0, text
    user.may(allow("*"), deny(action, resource))
    assert refused(code, run, **arguments).endswith(
        "with an explicit deny in an identity-based policy"
    )
    if resource != "*":
        user.may(allow(action, f"{resource}x"))
        assert f"{action} on resource: " in refused(code, run, **arguments)


# Calls that change something; when they are denied, nothing of this has to exist.
CHANGES = [
    ("lambda", "invoke", {"FunctionName": "f"}, "lambda:InvokeFunction", "function:f"),
    ("lambda", "delete_function", {"FunctionName": "f"}, "lambda:DeleteFunction", "function:f"),
    ("eks", "describe_cluster", {"name": "c"}, "eks:DescribeCluster", "cluster/c"),
    (
        "eks",
        "create_nodegroup",
        {
            "clusterName": "c",
            "nodegroupName": "n",
            "subnets": ["subnet-1"],
            "nodeRole": f"arn:aws:iam::{ACCOUNT}:role/node",
        },
        "eks:CreateNodegroup",
        "cluster/c",
    ),
    (
        "eks",
        "delete_nodegroup",
        {"clusterName": "c", "nodegroupName": "n"},
        "eks:DeleteNodegroup",
        "nodegroup/c/n/*",
    ),
    ("codebuild", "start_build", {"projectName": "p"}, "codebuild:StartBuild", "project/p"),
    ("codebuild", "batch_get_builds", {"ids": ["p:1"]}, "codebuild:BatchGetBuilds", "project/p"),
    ("codebuild", "stop_build", {"id": "p:1"}, "codebuild:StopBuild", "project/p"),
    (
        "codepipeline",
        "start_pipeline_execution",
        {"name": "p"},
        "codepipeline:StartPipelineExecution",
        "p",
    ),
    (
        "codepipeline",
        "put_approval_result",
        {
            "pipelineName": "p",
            "stageName": "s",
            "actionName": "a",
            "result": {"summary": "", "status": "Approved"},
            "token": "1" * 8 + "-1111-1111-1111-" + "1" * 12,
        },
        "codepipeline:PutApprovalResult",
        "p/s/a",
    ),
    (
        "cloudformation",
        "create_stack",
        {"StackName": "s", "TemplateBody": "{}"},
        "cloudformation:CreateStack",
        "stack/s/*",
    ),
    ("ssm", "put_parameter", {"Name": "p", "Value": "v"}, "ssm:PutParameter", "parameter/p"),
    (
        "events",
        "put_targets",
        {"Rule": "r", "Targets": [{"Id": "1", "Arn": "a"}]},
        "events:PutTargets",
        "rule/r",
    ),
    ("ecr", "delete_repository", {"repositoryName": "it"}, "ecr:DeleteRepository", "repository/it"),
    (
        "ec2",
        "terminate_instances",
        {"InstanceIds": ["i-1"]},
        "ec2:TerminateInstances",
        "instance/i-1",
    ),
    (
        "ec2",
        "attach_volume",
        {"VolumeId": "vol-1", "InstanceId": "i-1", "Device": "/dev/sdf"},
        "ec2:AttachVolume",
        "instance/i-1",
    ),
    ("ec2", "create_vpc", {"CidrBlock": "10.0.0.0/16"}, "ec2:CreateVpc", "vpc/*"),
    ("ec2", "delete_subnet", {"SubnetId": "subnet-1"}, "ec2:DeleteSubnet", "subnet/subnet-1"),
    ("iam", "create_user", {"UserName": "n", "Path": "/a/"}, "iam:CreateUser", "user/a/n"),
    ("iam", "delete_role", {"RoleName": "r"}, "iam:DeleteRole", "role/r"),
    (
        "iam",
        "add_user_to_group",
        {"GroupName": "g", "UserName": "n"},
        "iam:AddUserToGroup",
        "group/g",
    ),
    (
        "iam",
        "create_policy",
        {"PolicyName": "p", "PolicyDocument": "{}"},
        "iam:CreatePolicy",
        "policy/p",
    ),
    (
        "logs",
        "get_log_events",
        {"logGroupIdentifier": "g", "logStreamName": "s"},
        "logs:GetLogEvents",
        "log-group:*:log-stream:s",
    ),
    ("iam", "list_access_keys", {}, "iam:ListAccessKeys", "user/{name}"),
    ("s3", "create_bucket", {"Bucket": "new-one"}, "s3:CreateBucket", "new-one"),
    (
        "sts",
        "assume_role",
        {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/r", "RoleSessionName": "me"},
        "sts:AssumeRole",
        "role/r",
    ),
]


@pytest.fixture(scope="module")
def nobody(aws):
    return User("nobody-may-do-that")


@pytest.mark.parametrize(
    ("service", "call", "arguments", "action", "resource"), CHANGES, ids=[row[3] for row in CHANGES]
)
def test_the_resource_of_a_change(nobody, service, call, arguments, action, resource):
    with pytest.raises(ClientError) as problem:
        getattr(nobody.client(service), call)(**arguments)
    said = problem.value.response["Error"]["Message"]
    place = {"s3": "s3:::", "iam": f"iam::{ACCOUNT}:", "sts": f"iam::{ACCOUNT}:"}
    arn = f"arn:aws:{place.get(service, f'{service}:{HERE}:')}{resource.format(name=nobody.name)}"
    wanted = f"{action} on resource: {arn}".replace('"', "")
    assert f"{wanted} " in said.replace('"', "") + " "


def test_what_is_not_here_is_refused(user, role, iam):
    refused("NotImplemented", boto3.client("sts").get_session_token)
    web = {"RoleSessionName": "me", "WebIdentityToken": "xxxx"}
    web["RoleArn"] = f"arn:aws:iam::{ACCOUNT}:role/r"
    refused("NotImplemented", boto3.client("sts").assume_role_with_web_identity, **web)
    boundary = {"PermissionsBoundary": "arn:aws:iam::aws:policy/ReadOnlyAccess"}
    refused("NotImplemented", iam.create_user, UserName="no", **boundary)
    name = role.split("/")[1]
    refused("NotImplemented", iam.put_role_permissions_boundary, RoleName=name, **boundary)
    less = {"RoleArn": role, "RoleSessionName": "me", "Policy": document(allow("s3:GetObject"))}
    refused("NotImplemented", user.client("sts").assume_role, **less)
    asked = {"PolicyInputList": [document(allow("*"))], "ActionNames": ["s3:GetObject"]}
    refused("NotImplemented", iam.simulate_custom_policy, **asked)


def test_s3_says_it_word_by_word(things, user):
    s3 = user.client("s3")
    who = f"User: {user.arn} is not authorized to perform: "
    assert refused("AccessDenied", s3.list_buckets) == (
        f"{who}s3:ListAllMyBuckets because no identity-based policy allows "
        "the s3:ListAllMyBuckets action"
    )
    assert refused("AccessDenied", s3.get_object, Bucket="things", Key="k") == (
        f'{who}s3:GetObject on resource: "arn:aws:s3:::things/k" because no identity-based '
        "policy allows the s3:GetObject action"
    )


def test_only_who_may_list_a_bucket_is_told_that_an_object_is_missing(things, user):
    s3 = user.client("s3")
    user.may(allow("s3:GetObject"))
    said = refused("AccessDenied", s3.get_object, Bucket="things", Key="missing")
    assert "not authorized to perform: s3:ListBucket" in said
    refused("403", s3.head_object, Bucket="things", Key="missing")
    user.may(allow(["s3:GetObject", "s3:ListBucket"]))
    refused("NoSuchKey", s3.get_object, Bucket="things", Key="missing")
    refused("404", s3.head_object, Bucket="things", Key="missing")


def test_who_one_is_can_always_be_asked(user):
    user.may(deny("*"))
    assert user.client("sts").get_caller_identity()["Arn"] == user.arn


# --- Where policies come from


def test_a_group_speaks_for_its_members(things, user, iam):
    iam.create_group(GroupName="readers")
    iam.put_group_policy(
        GroupName="readers", PolicyName="p", PolicyDocument=document(allow("s3:ListAllMyBuckets"))
    )
    refused("AccessDenied", user.client("s3").list_buckets)
    iam.add_user_to_group(GroupName="readers", UserName=user.name)
    user.client("s3").list_buckets()
    user.may(deny("s3:*"))
    assert "explicit deny" in refused("AccessDenied", user.client("s3").list_buckets)


def test_managed_policies_of_aws(things, user, iam):
    read = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    iam.attach_user_policy(UserName=user.name, PolicyArn=read)
    s3 = user.client("s3")
    s3.get_object(Bucket="things", Key="k")
    refused("AccessDenied", s3.put_object, Bucket="things", Key="k", Body=b"")
    refused("UnauthorizedOperation", user.client("ec2").describe_instances)
    iam.attach_user_policy(UserName=user.name, PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
    user.client("ec2").describe_instances()
    refused("UnauthorizedOperation", user.client("ec2").create_key_pair, KeyName="no")
    names = {one["PolicyName"] for one in iam.list_policies(Scope="AWS", MaxItems=1000)["Policies"]}
    assert "AdministratorAccess" in names
    basic = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
    assert iam.get_policy(PolicyArn=basic)["Policy"]["Arn"] == basic


def test_the_default_version_of_a_policy_counts(things, user, iam):
    made = iam.create_policy(PolicyName="v", PolicyDocument=document(allow("s3:GetObject")))
    arn = made["Policy"]["Arn"]
    iam.attach_user_policy(UserName=user.name, PolicyArn=arn)
    refused("AccessDenied", user.client("s3").list_buckets)
    iam.create_policy_version(
        PolicyArn=arn, PolicyDocument=document(allow("s3:ListAllMyBuckets")), SetAsDefault=True
    )
    user.client("s3").list_buckets()
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v1")
    refused("AccessDenied", user.client("s3").list_buckets)


def test_a_bucket_may_let_somebody_in(things, user):
    s3, root = user.client("s3"), boto3.client("s3")
    root.create_bucket(Bucket="opened")
    root.put_object(Bucket="opened", Key="k", Body=b"hi")

    def opened(principal, effect="Allow"):
        one = allow("s3:GetObject", "arn:aws:s3:::opened/*", effect, Principal={"AWS": principal})
        root.put_bucket_policy(Bucket="opened", Policy=document(one))

    opened(user.arn)
    s3.get_object(Bucket="opened", Key="k")
    refused("AccessDenied", s3.put_object, Bucket="opened", Key="k", Body=b"")
    user.may(deny("s3:GetObject"))
    refused("AccessDenied", s3.get_object, Bucket="opened", Key="k")
    user.may()
    opened(ACCOUNT)  # the account may, which decides by its own policies
    refused("AccessDenied", s3.get_object, Bucket="opened", Key="k")
    user.may(allow("s3:*"))
    s3.get_object(Bucket="opened", Key="k")
    opened(user.arn, "Deny")
    said = refused("AccessDenied", s3.get_object, Bucket="opened", Key="k")
    assert said.endswith("with an explicit deny in a resource-based policy")
    root.get_object(Bucket="opened", Key="k")


# --- Conditions


@pytest.mark.parametrize(
    ("condition", "other"),
    [
        ({"StringEquals": {"aws:RequestedRegion": "us-east-1"}}, "eu-west-1"),
        ({"StringLike": {"aws:username": "u*"}}, "v*"),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/u*"}}, "arn:aws:iam::*:role/*"),
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, "10.0.0.0/8"),
        ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, "2999-01-01T00:00:00Z"),
        ({"Bool": {"aws:SecureTransport": "true"}}, "false"),
        ({"StringEquals": {"aws:RequestTag/team": "web"}}, "db"),
        ({"StringEquals": {"ec2:CreateAction": "CreateVolume"}}, None),
    ],
)
def test_conditions(user, condition, other):
    ec2 = user.client("ec2")
    tags = {"ResourceType": "volume", "Tags": [{"Key": "team", "Value": "web"}]}
    volume = {"AvailabilityZone": "us-east-1a", "Size": 1, "TagSpecifications": [tags]}
    if other is None:  # a key that only the tagging has
        user.may(allow("ec2:CreateVolume"), allow("ec2:CreateTags", Condition=condition))
        ec2.create_volume(**volume)
        user.may(allow("ec2:CreateVolume"))
        assert "ec2:CreateTags" in refused("UnauthorizedOperation", ec2.create_volume, **volume)
        return
    user.may(allow("ec2:*", Condition=condition))
    ec2.create_volume(**volume)
    ((operator, ((key, _),)),) = ((name, test.items()) for name, test in condition.items())
    user.may(allow("ec2:*", Condition={operator: {key: other}}))
    refused("UnauthorizedOperation", ec2.create_volume, **volume)


def test_tags_of_a_resource_and_a_dry_run(user):
    ec2, root = user.client("ec2"), boto3.client("ec2")
    mine, other = (
        root.create_volume(
            AvailabilityZone="us-east-1a",
            Size=1,
            TagSpecifications=[
                {"ResourceType": "volume", "Tags": [{"Key": "owner", "Value": value}]}
            ],
        )["VolumeId"]
        for value in (user.name, "other")
    )
    owned = {"StringEquals": {"aws:ResourceTag/owner": "${aws:username}"}}
    user.may(allow("ec2:DeleteVolume", f"arn:aws:ec2:{HERE}:volume/*", Condition=owned))
    refused("UnauthorizedOperation", ec2.delete_volume, VolumeId=other)
    refused("UnauthorizedOperation", ec2.delete_volume, VolumeId=other, DryRun=True)
    refused("DryRunOperation", ec2.delete_volume, VolumeId=mine, DryRun=True)
    ec2.delete_volume(VolumeId=mine)


def test_a_prefix_of_a_bucket(things, user):
    home = {"StringLike": {"s3:prefix": "${aws:username}/*"}}
    user.may(allow("s3:ListBucket", "arn:aws:s3:::things", Condition=home))
    s3 = user.client("s3")
    s3.list_objects_v2(Bucket="things", Prefix=f"{user.name}/a")
    refused("AccessDenied", s3.list_objects_v2, Bucket="things", Prefix="other/")
    refused("AccessDenied", s3.list_objects_v2, Bucket="things")


# --- Roles


@pytest.fixture
def role(iam, user):
    name = f"r-{user.name}"
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusting(AWS=user.arn))
    return arn["Role"]["Arn"]


def assumed(user, role, **more):
    given = user.client("sts").assume_role(RoleArn=role, RoleSessionName="me", **more)
    words = [
        given["Credentials"][key] for key in ("AccessKeyId", "SecretAccessKey", "SessionToken")
    ]
    return boto3.Session(*words)


def test_a_role_is_who_it_trusts_and_may_what_it_may(things, user, role, iam):
    name = role.split("/")[1]
    as_role = assumed(user, role)
    arn = as_role.client("sts").get_caller_identity()["Arn"]
    assert arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/me"
    s3 = as_role.client("s3")
    assert f"User: {arn} is not" in refused("AccessDenied", s3.list_buckets)
    policy = document(allow("s3:ListAllMyBuckets"), allow("s3:GetObject"))
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy)
    s3.list_buckets()
    s3.get_object(Bucket="things", Key="k")


def test_who_was_deleted_leaves_an_id_in_trust_policies(iam):
    own = trusting(Service="ec2.amazonaws.com")
    arn = iam.create_role(RoleName="gone", AssumeRolePolicyDocument=own)["Role"]["Arn"]
    iam.create_role(RoleName="left", AssumeRolePolicyDocument=trusting(AWS=arn))
    iam.delete_role(RoleName="gone")
    iam.create_role(RoleName="gone", AssumeRolePolicyDocument=own)  # another one of the name
    trust = iam.get_role(RoleName="left")["Role"]["AssumeRolePolicyDocument"]
    assert trust["Statement"][0]["Principal"]["AWS"].startswith("AROA")


def test_trust_in_the_account_leaves_it_to_policies(user, role, iam):
    name = role.split("/")[1]
    trust = trusting(AWS=f"arn:aws:iam::{ACCOUNT}:root")
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
    assume = {"RoleArn": role, "RoleSessionName": "me"}
    sts = user.client("sts")
    text = f"User: {user.arn} is not authorized to perform: sts:AssumeRole on resource: {role}"
    assert refused("AccessDenied", sts.assume_role, **assume).startswith(text)
    user.may(allow("sts:AssumeRole", role))
    sts.assume_role(**assume)
    iam.update_assume_role_policy(
        RoleName=name, PolicyDocument=trusting(Service="ec2.amazonaws.com")
    )
    assert refused("AccessDenied", sts.assume_role, **assume) == text
    missing = assume | {"RoleArn": f"{role}-not"}
    user.may(allow("*"))
    assert refused("AccessDenied", sts.assume_role, **missing) == f"{text}-not"
    said = refused("AccessDenied", boto3.client("sts").assume_role, **assume)
    assert said == "Roles may not be assumed by root accounts."


def test_an_external_id_is_asked_for(user, role, iam):
    trust = json.loads(trusting(AWS=user.arn))
    trust["Statement"][0]["Condition"] = {"StringEquals": {"sts:ExternalId": "secret"}}
    name = role.split("/")[1]
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust))
    assume = {"RoleArn": role, "RoleSessionName": "me"}
    refused("AccessDenied", user.client("sts").assume_role, **assume)
    refused("AccessDenied", user.client("sts").assume_role, **assume, ExternalId="other")
    assumed(user, role, ExternalId="secret")


def test_a_session_lasts_as_long_as_the_role_allows(user, role):
    assume = {"RoleArn": role, "RoleSessionName": "me"}
    given = user.client("sts").assume_role(**assume, DurationSeconds=900)
    expires = given["Credentials"]["Expiration"]
    begun = given["ResponseMetadata"]["HTTPHeaders"]["date"]
    rest = expires - parsedate_to_datetime(begun)
    assert timedelta(seconds=890) < rest <= timedelta(seconds=901)
    said = refused(
        "ValidationError", user.client("sts").assume_role, **assume, DurationSeconds=7200
    )
    assert said.startswith("The requested DurationSeconds exceeds the MaxSessionDuration")


EXPIRED = """
import boto3, json, os, pathlib, threading
from werkzeug.serving import make_server
from helpers.cloud import calls, extensions, permissions, signatures
extensions.watch()
calls.CHECKS += [signatures.check, permissions.check]
server = make_server("127.0.0.1", 0, calls.Dispatcher(pathlib.Path(os.environ["HERE"])))
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{server.server_port}"
ec2 = {"Service": "ec2.amazonaws.com"}
trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": ec2}
arn = boto3.client("iam").create_role(
    RoleName="r", AssumeRolePolicyDocument=json.dumps({"Statement": trust})
)["Role"]["Arn"]
from helpers.cloud.services import sts
key, secret, token = sts.assume(arn, "ec2")
session = boto3.Session(key, secret, token)
print(session.client("sts").get_caller_identity()["Arn"])
try: sts.assume(arn, "lambda")
except calls.Refusal as problem: print(problem.code, problem.message)
found = sts.session(key)
found.expiration = found.expiration.replace(year=2000)
for service, call in [("sts", "get_caller_identity"), ("s3", "list_buckets"),
                      ("ec2", "describe_vpcs"), ("ssm", "describe_parameters")]:
    try: getattr(session.client(service), call)()
    except Exception as problem: print(problem)
"""


def test_a_service_may_be_a_role_until_its_session_is_over(aws, tmp_path):
    settings = os.environ | {"HERE": str(tmp_path)}
    run = {"env": settings, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", EXPIRED], **run)
    said = done.stdout.splitlines()
    assert said[0] == f"arn:aws:sts::{ACCOUNT}:assumed-role/r/ec2", done.stderr
    assert said[1].endswith("cannot be assumed by Lambda.")
    codes = ["ExpiredToken", "ExpiredToken", "RequestExpired", "ExpiredTokenException"]
    assert [line.split("(")[1].split(")")[0] for line in said[2:]] == codes


def test_a_role_has_to_be_passed(user, iam, role):
    name = role.split("/")[1]
    iam.update_assume_role_policy(
        RoleName=name, PolicyDocument=trusting(Service="lambda.amazonaws.com")
    )
    function = {
        "FunctionName": name,
        "Role": role,
        "Runtime": "python3.12",
        "Handler": "index.handler",
        "Code": {"ZipFile": zipped()},
    }
    user.may(allow("lambda:*"))
    create = user.client("lambda").create_function
    said = refused("AccessDeniedException", create, **function)
    assert f"iam:PassRole on resource: {role} because" in said
    other = {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    user.may(allow("lambda:*"), allow("iam:PassRole", role, Condition=other))
    refused("AccessDeniedException", create, **function)
    to = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    user.may(allow("lambda:*"), allow("iam:PassRole", role, Condition=to))
    create(**function)


def test_an_instance_takes_all_that_it_is_made_of(user, things, iam):
    image = boto3.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    run = {"ImageId": image, "MinCount": 1, "MaxCount": 1, "SecurityGroupIds": [things["group"]]}
    trust = trusting(Service="ec2.amazonaws.com")
    role = iam.create_role(RoleName="web", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    iam.create_instance_profile(InstanceProfileName="web")
    to = {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    put = {"InstanceProfileName": "web", "RoleName": "web"}
    user.may(allow("iam:AddRoleToInstanceProfile"))
    said = refused("AccessDenied", user.client("iam").add_role_to_instance_profile, **put)
    assert f"iam:PassRole on resource: {role}" in said
    user.may(allow("iam:AddRoleToInstanceProfile"), allow("iam:PassRole", role, Condition=to))
    user.client("iam").add_role_to_instance_profile(**put)
    run |= {"IamInstanceProfile": {"Name": "web"}, "DryRun": True, "InstanceType": "t3.micro"}
    parts = [
        f"arn:aws:ec2:{HERE}:instance/*",
        f"arn:aws:ec2:us-east-1::image/{image}",
        f"arn:aws:ec2:{HERE}:network-interface/*",
        f"arn:aws:ec2:{HERE}:security-group/{things['group']}",
        f"arn:aws:ec2:{HERE}:volume/*",
    ]
    passing = allow("iam:PassRole", role)
    ec2 = user.client("ec2")
    user.may(allow("ec2:RunInstances", parts), passing)
    refused("DryRunOperation", ec2.run_instances, **run)
    for part in parts:
        user.may(allow("ec2:RunInstances", [one for one in parts if one != part]), passing)
        assert part in refused("UnauthorizedOperation", ec2.run_instances, **run)
    user.may(allow("ec2:RunInstances", parts))
    assert "iam:PassRole" in refused("UnauthorizedOperation", ec2.run_instances, **run)


# --- Documents that are none


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ("{", "Syntax errors in policy."),
        (document(allow("s3:*", effect="allow")), "Syntax errors in policy."),
        (document(allow("s3:*", Condition={"StringIs": {"a:b": "c"}})), "Syntax errors in policy."),
        (document(allow("s3:*", Principal="*")), "Policy document should not specify a principal."),
        (document(allow("s3:*", "bucket")), 'Resource bucket must be in ARN format or "*".'),
        (
            document({"Effect": "Allow", "Action": "s3:*"}),
            "Policy statement must contain resources.",
        ),
        (document(allow("GetObject")), "Actions/Conditions must be prefaced by a vendor"),
        (document(), "Syntax errors in policy."),
    ],
)
def test_a_policy_that_is_none(iam, policy, why):
    said = refused(
        "MalformedPolicyDocument", iam.create_policy, PolicyName="no", PolicyDocument=policy
    )
    assert said.startswith(why)


def test_a_policy_needs_no_version(user):
    statement = json.dumps({"Statement": [allow("s3:ListAllMyBuckets")]})
    user.iam.put_user_policy(UserName=user.name, PolicyName="p", PolicyDocument=statement)
    user.client("s3").list_buckets()


@pytest.mark.parametrize(
    ("trust", "why"),
    [
        ("{", "Syntax errors in policy."),
        (
            trusting(AWS=f"arn:aws:iam::{ACCOUNT}:user/nobody"),
            f'Invalid principal in policy: "AWS":"arn:aws:iam::{ACCOUNT}:user/nobody"',
        ),
        (trusting(Service="ec2"), 'Invalid principal in policy: "SERVICE":"ec2"'),
        (
            document({"Effect": "Allow", "Action": "sts:AssumeRole"}),
            "Missing required field Principal",
        ),
    ],
)
def test_a_trust_policy_that_is_none(iam, trust, why):
    said = refused(
        "MalformedPolicyDocument", iam.create_role, RoleName="no", AssumeRolePolicyDocument=trust
    )
    assert said == why


# --- The simulator


def test_the_simulator_says_what_would_be(user, iam):
    user.may(
        allow("s3:GetObject", "arn:aws:s3:::b/*"),
        deny("s3:GetObject", "arn:aws:s3:::b/secret"),
        allow("ec2:*", Condition={"StringEquals": {"aws:RequestedRegion": "us-east-1"}}),
    )
    iam.attach_user_policy(
        UserName=user.name, PolicyArn="arn:aws:iam::aws:policy/IAMReadOnlyAccess"
    )

    def ask(actions, resources=("*",), **context):
        entries = [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in context.items()
        ]
        return {
            (one["EvalActionName"], one["EvalResourceName"]): (
                one["EvalDecision"],
                [match["SourcePolicyId"] for match in one["MatchedStatements"]],
            )
            for one in iam.simulate_principal_policy(
                PolicySourceArn=user.arn,
                ActionNames=list(actions),
                ResourceArns=list(resources),
                ContextEntries=entries,
            )["EvaluationResults"]
        }

    mine = [f"user_{user.name}_p"]
    assert ask(
        ["s3:GetObject"], ["arn:aws:s3:::b/k", "arn:aws:s3:::b/secret", "arn:aws:s3:::c/k"]
    ) == {
        ("s3:GetObject", "arn:aws:s3:::b/k"): ("allowed", mine),
        ("s3:GetObject", "arn:aws:s3:::b/secret"): ("explicitDeny", mine),
        ("s3:GetObject", "arn:aws:s3:::c/k"): ("implicitDeny", []),
    }
    assert ask(["iam:ListUsers"])["iam:ListUsers", "*"] == ("allowed", ["IAMReadOnlyAccess"])
    here = {"aws:RequestedRegion": "us-east-1"}
    assert ask(["ec2:RunInstances"], **here)["ec2:RunInstances", "*"] == ("allowed", mine)
    assert ask(["ec2:RunInstances"])["ec2:RunInstances", "*"][0] == "implicitDeny"
    refused(
        "NoSuchEntity",
        iam.simulate_principal_policy,
        PolicySourceArn=f"{user.arn}x",
        ActionNames=["s3:GetObject"],
    )
    more = {"PolicySourceArn": user.arn, "ActionNames": ["sqs:SendMessage"]}
    more["PolicyInputList"] = [document(allow("sqs:SendMessage"))]
    (found,) = iam.simulate_principal_policy(**more)["EvaluationResults"]
    assert found["EvalDecision"] == "allowed"
    for text in ("{'Statement': []}", document({"Effect": "Allow"})):
        refused("InvalidInput", iam.simulate_principal_policy, **more | {"PolicyInputList": [text]})
    text = subprocess.run(
        ["aws", "iam", "simulate-principal-policy", "--policy-source-arn", user.arn]
        + ["--action-names", "iam:ListUsers", "--query", "EvaluationResults[0].EvalDecision"],
        capture_output=True,
        text=True,
    ).stdout
    assert text.strip() == '"allowed"'


# --- The recorder


def work(client, run):
    """Do a piece of work that uses several services, and clean up after it."""
    s3, ssm, ec2 = client("s3"), client("ssm"), client("ec2")
    s3.create_bucket(Bucket=f"work-{run}")
    s3.put_object(Bucket="work-all", Key="k", Body=b"hi")
    s3.get_object(Bucket="work-all", Key="k")
    ssm.put_parameter(Name="/work/p", Value="v", Type="String", Overwrite=True)
    ssm.get_parameters(Names=["/work/p"])
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    ec2.describe_volumes(VolumeIds=[volume])
    ec2.delete_volume(VolumeId=volume)
    s3.delete_bucket(Bucket=f"work-{run}")
    client("sts").get_caller_identity()


def test_the_least_privilege_is_recorded_and_proved(user):
    boto3.client("s3").create_bucket(Bucket="work-all")
    with cloud.recorded() as policy:
        work(boto3.client, "again")
        refused("AccessDenied", user.client("s3").list_buckets)
    assert policy["Statement"]
    user.may(*policy["Statement"])
    work(user.client, "again")
    needed = [
        (number, action)
        for number, one in enumerate(policy["Statement"])
        for action in one["Action"]
    ]
    assert len({action for _, action in needed}) == 9
    assert "s3:ListAllMyBuckets" not in json.dumps(policy)
    for number, action in needed:
        less = json.loads(json.dumps(policy["Statement"]))
        less[number]["Action"].remove(action)
        user.may(*[one for one in less if one["Action"]])
        with pytest.raises(ClientError, match="not authorized to perform: " + action):
            work(user.client, "again")
        boto3.client("s3").delete_bucket(
            Bucket="work-again"
        ) if action == "s3:DeleteBucket" else None


# --- The language


PIECES = {
    "Effect": st.sampled_from(["Allow", "Deny"]),
    "Action": st.sampled_from(["*", "s3:*", "s3:Get*", "s3:GetObject", "ec2:*", "S3:getobject"]),
    "Resource": st.sampled_from(["*", "arn:aws:s3:::b/*", "arn:aws:s3:::b/k", "arn:aws:s3:::c/?"]),
}
STATEMENTS = st.lists(st.fixed_dictionaries(PIECES), max_size=6)
FACTS = ("s3:GetObject", "arn:aws:s3:::b/k", {})


@given(STATEMENTS, st.randoms())
def test_a_deny_wins_and_order_does_not_matter(statements, chance):
    said = policies.verdict([{"Statement": statements}], *FACTS)
    alone = {policies.verdict([{"Statement": one}], *FACTS) for one in statements}
    assert said == ("Deny" if "Deny" in alone else "Allow" if "Allow" in alone else "")
    mixed = chance.sample(statements, len(statements))
    assert policies.verdict([{"Statement": mixed}], *FACTS) == said
    assert policies.verdict([{"Statement": one} for one in mixed], *FACTS) == said
