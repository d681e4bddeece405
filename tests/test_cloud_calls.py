"""A practitioner's first week: each call by boto3 and by ``aws``, and the state that it leaves."""

import json
import subprocess

import boto3
import pytest
from botocore.exceptions import ClientError

from helpers import cloud

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "ec2.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)
ALLOW = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}],
    }
)
BUCKET = json.dumps({"Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}}})
# Service, call, its parameters as JSON, and what then is there: a call, and a path into its answer.
# NAME stands for a name.
CALLS = [
    ("s3", "create-bucket", {"Bucket": "NAME"}, ("list_buckets", {}, "Buckets.Name")),
    ("sqs", "create-queue", {"QueueName": "NAME"}, ("list_queues", {}, "QueueUrls")),
    ("sns", "create-topic", {"Name": "NAME"}, ("list_topics", {}, "Topics.TopicArn")),
    ("iam", "create-user", {"UserName": "NAME"}, ("list_users", {}, "Users.UserName")),
    ("iam", "create-group", {"GroupName": "NAME"}, ("list_groups", {}, "Groups.GroupName")),
    (
        "iam",
        "create-role",
        {"RoleName": "NAME", "AssumeRolePolicyDocument": TRUST},
        ("list_roles", {}, "Roles.RoleName"),
    ),
    (
        "iam",
        "create-policy",
        {"PolicyName": "NAME", "PolicyDocument": ALLOW},
        ("list_policies", {"Scope": "Local"}, "Policies.PolicyName"),
    ),
    (
        "iam",
        "create-instance-profile",
        {"InstanceProfileName": "NAME"},
        ("list_instance_profiles", {}, "InstanceProfiles.InstanceProfileName"),
    ),
    (
        "ssm",
        "put-parameter",
        {"Name": "NAME", "Value": "v", "Type": "String"},
        ("describe_parameters", {}, "Parameters.Name"),
    ),
    (
        "ec2",
        "create-key-pair",
        {"KeyName": "NAME"},
        ("describe_key_pairs", {}, "KeyPairs.KeyName"),
    ),
    (
        "ec2",
        "create-security-group",
        {"GroupName": "NAME", "Description": "d"},
        ("describe_security_groups", {}, "SecurityGroups.GroupName"),
    ),
    (
        "ec2",
        "create-launch-template",
        {"LaunchTemplateName": "NAME", "LaunchTemplateData": {"InstanceType": "t3.micro"}},
        ("describe_launch_templates", {}, "LaunchTemplates.LaunchTemplateName"),
    ),
    (
        "logs",
        "create-log-group",
        {"logGroupName": "NAME"},
        ("describe_log_groups", {}, "logGroups.logGroupName"),
    ),
    (
        "ecr",
        "create-repository",
        {"repositoryName": "NAME"},
        ("describe_repositories", {}, "repositories.repositoryName"),
    ),
    (
        "events",
        "put-rule",
        {"Name": "NAME", "EventPattern": '{"source": ["me"]}'},
        ("list_rules", {}, "Rules.Name"),
    ),
    (
        "cloudformation",
        "create-stack",
        {"StackName": "NAME", "TemplateBody": BUCKET},
        ("describe_stacks", {}, "Stacks.StackName"),
    ),
]
# What ends it, and the parameters that name it there.
ENDS = {
    "create-bucket": ("delete-bucket", ["Bucket"]),
    "create-user": ("delete-user", ["UserName"]),
    "create-group": ("delete-group", ["GroupName"]),
    "create-role": ("delete-role", ["RoleName"]),
    "create-instance-profile": ("delete-instance-profile", ["InstanceProfileName"]),
    "put-parameter": ("delete-parameter", ["Name"]),
    "create-key-pair": ("delete-key-pair", ["KeyName"]),
    "create-security-group": ("delete-security-group", ["GroupName"]),
    "create-launch-template": ("delete-launch-template", ["LaunchTemplateName"]),
    "create-log-group": ("delete-log-group", ["logGroupName"]),
    "create-repository": ("delete-repository", ["repositoryName"]),
    "put-rule": ("delete-rule", ["Name"]),
    "create-stack": ("delete-stack", ["StackName"]),
}


@pytest.fixture(scope="module")
def aws(shared_home):
    return cloud.start()


def by_boto3(service, call, parameters):
    return getattr(boto3.client(service), call.replace("-", "_"))(**parameters)


def by_command(service, call, parameters):
    command = ["aws", "s3api" if service == "s3" else service, call]
    command += ["--cli-input-json", json.dumps(parameters)]
    subprocess.run(command, check=True, capture_output=True)


def there(service, state):
    """Return the last parts of the names that a call finds."""
    call, parameters, path = state
    plural, _, name = path.partition(".")
    found = getattr(boto3.client(service), call)(**parameters).get(plural, [])
    return [(one[name] if name else one).replace("/", ":").split(":")[-1] for one in found]


@pytest.mark.parametrize("how", [by_boto3, by_command])
@pytest.mark.parametrize(
    ("service", "call", "parameters", "state"), CALLS, ids=[f"{row[0]}-{row[1]}" for row in CALLS]
)
def test_a_call_leaves_its_state_and_its_end_takes_it_away(
    aws, how, service, call, parameters, state
):
    name = f"first-week-{how.__name__.replace('_', '-')}"
    assert name not in there(service, state)
    named = {key: name if value == "NAME" else value for key, value in parameters.items()}
    how(service, call, named)
    assert there(service, state).count(name) == 1
    if call in ("create-bucket", "create-user", "create-group", "create-role", "create-repository"):
        if service != "s3":
            with pytest.raises(ClientError, match="(?i)exist"):
                by_boto3(service, call, named)
        assert there(service, state).count(name) == 1
    if call in ENDS:
        end, keys = ENDS[call]
        if call == "create-stack":
            boto3.client(service).get_waiter("stack_create_complete").wait(StackName=name)
        how(service, end, {key: named[key] for key in keys})
        if call == "create-stack":
            boto3.client(service).get_waiter("stack_delete_complete").wait(StackName=name)
        assert name not in there(service, state)
