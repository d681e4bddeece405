"""CloudFormation of the local cloud: what a stack becomes, step by step, as AWS tells it."""

import io
import json
import subprocess
import time
import zipfile
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from waiting import until

from helpers import cloud, ledger

TEMPLATES = Path(__file__).resolve().parents[1] / "data/templates"
TRUST = """{Version: 2012-10-17, Statement: [{Effect: Allow, Action: "sts:AssumeRole",
      Principal: {Service: lambda.amazonaws.com}}]}"""


@pytest.fixture(scope="module", autouse=True)
def aws(shared_home):
    return cloud.start()


@pytest.fixture(scope="module")
def cf(aws):
    return boto3.client("cloudformation")


@pytest.fixture(scope="module")
def ssm(aws):
    return boto3.client("ssm")


def parameter(value, name=None, **more):
    """A resource that is cheap: a parameter in the Parameter Store."""
    properties = {"Type": "String", "Value": value} | ({"Name": name} if name else {})
    return {"Type": "AWS::SSM::Parameter", "Properties": properties, **more}


def body(resources, **more):
    return json.dumps({"Resources": resources, **more})


def settled(cf, stack):
    """Wait until nothing happens to a stack any more, and return it."""
    while True:
        (found,) = cf.describe_stacks(StackName=stack)["Stacks"]
        if not found["StackStatus"].endswith("_IN_PROGRESS"):
            return found
        time.sleep(0.05)


def made(cf, name, template, status="CREATE_COMPLETE", **more):
    stack = cf.create_stack(StackName=name, TemplateBody=template, **more)["StackId"]
    found = settled(cf, stack)
    assert found["StackStatus"] == status, events(cf, stack)
    return found


def updated(cf, name, template, status="UPDATE_COMPLETE", **more):
    stack = cf.update_stack(StackName=name, TemplateBody=template, **more)["StackId"]
    found = settled(cf, stack)
    assert found["StackStatus"] == status, events(cf, stack)
    return found


def deleted(cf, name, status="DELETE_COMPLETE", **more):
    (stack,) = cf.describe_stacks(StackName=name)["Stacks"]
    cf.delete_stack(StackName=name, **more)
    found = settled(cf, stack["StackId"])
    assert found["StackStatus"] == status, events(cf, stack["StackId"])
    return found


def events(cf, stack):
    """Return (logical id, status, reason) of each event, oldest first."""
    pages = cf.describe_stack_events(StackName=stack)["StackEvents"]
    return [
        (e["LogicalResourceId"], e["ResourceStatus"], e.get("ResourceStatusReason", ""))
        for e in reversed(pages)
    ]


def steps(cf, stack):
    return [(name, status) for name, status, _ in events(cf, stack)]


def outputs(stack):
    return {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}


def sh(command, ok=True):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr


def refused(text, call, **parameters):
    with pytest.raises(ClientError) as problem:
        call(**parameters)
    assert text in problem.value.response["Error"]["Message"]
    return problem.value.response["Error"]["Code"]


# --- Creation


def test_resources_are_created_in_order_and_every_step_is_told(cf, ssm):
    first, second = parameter("1", "/t/first"), parameter({"Ref": "First"}, "/t/second")
    found = made(cf, "ordered", body({"Second": second, "First": first}))
    assert steps(cf, "ordered") == [
        ("ordered", "CREATE_IN_PROGRESS"),
        ("First", "CREATE_IN_PROGRESS"),
        ("First", "CREATE_IN_PROGRESS"),
        ("First", "CREATE_COMPLETE"),
        ("Second", "CREATE_IN_PROGRESS"),
        ("Second", "CREATE_IN_PROGRESS"),
        ("Second", "CREATE_COMPLETE"),
        ("ordered", "CREATE_COMPLETE"),
    ]
    reasons = [reason for *_, reason in events(cf, "ordered")]
    assert reasons[:3] == ["User Initiated", "", "Resource creation Initiated"]
    assert ssm.get_parameter(Name="/t/second")["Parameter"]["Value"] == "/t/first"
    one = cf.describe_stack_resource(StackName="ordered", LogicalResourceId="First")
    assert one["StackResourceDetail"]["PhysicalResourceId"] == "/t/first"
    listed = cf.list_stack_resources(StackName="ordered")["StackResourceSummaries"]
    assert [r["LogicalResourceId"] for r in listed] == ["First", "Second"]
    by_id = cf.describe_stack_resources(PhysicalResourceId="/t/second")["StackResources"]
    assert {r["StackName"] for r in by_id} == {"ordered"} and found["CreationTime"]
    deleted(cf, "ordered")
    assert steps(cf, found["StackId"])[-5:] == [
        ("Second", "DELETE_IN_PROGRESS"),
        ("Second", "DELETE_COMPLETE"),
        ("First", "DELETE_IN_PROGRESS"),
        ("First", "DELETE_COMPLETE"),
        ("ordered", "DELETE_COMPLETE"),
    ]
    refused("Stack with id ordered does not exist", cf.describe_stacks, StackName="ordered")
    with pytest.raises(ClientError, match="ParameterNotFound"):
        ssm.get_parameter(Name="/t/first")


def test_a_failure_rolls_back_and_says_why(cf, ssm):
    bad = parameter("x", "/t/rb-bad", DependsOn="Good")
    bad["Properties"]["Type"] = "Text"
    resources = {"Good": parameter("1", "/t/rb-good"), "Bad": bad}
    resources["Never"] = parameter({"Ref": "Bad"})
    made(cf, "rolled", body(resources), "ROLLBACK_COMPLETE")
    told = events(cf, "rolled")
    reason = {(name, status): why for name, status, why in told}
    assert "failed to satisfy constraint" in reason["Bad", "CREATE_FAILED"]
    assert reason["rolled", "ROLLBACK_IN_PROGRESS"] == (
        "The following resource(s) failed to create: [Bad]. Rollback requested by user."
    )
    assert ("Good", "DELETE_COMPLETE") in reason and told[-1][:2] == ("rolled", "ROLLBACK_COMPLETE")
    assert not any(name == "Never" and status.startswith("CREATE") for name, status, _ in told)
    with pytest.raises(ClientError, match="ParameterNotFound"):
        ssm.get_parameter(Name="/t/rb-good")
    text = "is in ROLLBACK_COMPLETE state and can not be updated."
    refused(text, cf.update_stack, StackName="rolled", TemplateBody=body(resources))
    deleted(cf, "rolled")


def test_what_else_can_be_done_on_failure(cf, ssm):
    bad = parameter("x", DependsOn="Good")
    bad["Properties"]["Colour"] = "red"
    template = body({"Good": parameter("1", "/t/kept"), "Bad": bad})
    made(cf, "kept", template, "CREATE_FAILED", OnFailure="DO_NOTHING")
    reasons = {why for name, status, why in events(cf, "kept") if status == "CREATE_FAILED"}
    assert "Encountered unsupported property Colour" in reasons
    assert ssm.get_parameter(Name="/t/kept")
    deleted(cf, "kept")
    made(cf, "vanished", template, "DELETE_COMPLETE", OnFailure="DELETE")
    with pytest.raises(ClientError, match="ParameterNotFound"):
        ssm.get_parameter(Name="/t/kept")


def test_a_required_property_that_is_missing(cf):
    one = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String"}}
    made(cf, "lacking", body({"One": one}), "ROLLBACK_COMPLETE")
    assert any("required key [Value] not found" in why for *_, why in events(cf, "lacking"))


def test_independent_resources_are_cancelled_when_one_fails(cf):
    # Whatever was under way is rolled back too, and nothing else begins.
    resources = {f"P{n}": parameter(str(n), f"/t/par-{n}") for n in range(6)}
    resources["P0"]["Properties"]["Type"] = "Text"
    made(cf, "cancelled", body(resources), "ROLLBACK_COMPLETE")
    ends = {name: status for name, status in steps(cf, "cancelled")}
    assert set(ends.values()) <= {"DELETE_COMPLETE", "ROLLBACK_COMPLETE"}
    for name, status, why in events(cf, "cancelled"):
        if status == "CREATE_FAILED" and name != "P0":
            assert why == "Resource creation cancelled"


def test_deleting_while_it_is_created(cf):
    chain = {f"P{n}": parameter(str(n), f"/t/chain-{n}") for n in range(30)}
    for n in range(1, 30):
        chain[f"P{n}"]["DependsOn"] = f"P{n - 1}"
    stack = cf.create_stack(StackName="hasty", TemplateBody=body(chain))["StackId"]
    refused(
        "Stack [hasty] already exists",
        cf.create_stack,
        StackName="hasty",
        TemplateBody=body(chain),
    )
    cf.delete_stack(StackName="hasty")
    assert settled(cf, stack)["StackStatus"] == "DELETE_COMPLETE"
    assert not boto3.client("ssm").describe_parameters(
        ParameterFilters=[{"Key": "Name", "Option": "BeginsWith", "Values": ["/t/chain"]}]
    )["Parameters"]


# --- What is refused

UNKNOWN = "Template format error: Unrecognized resource types: [AWS::Foo::Bar]"


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        ({"A": {"Type": "AWS::Foo::Bar"}}, UNKNOWN),
        (
            {"A": parameter({"Ref": "X"})},
            "Template format error: Unresolved resource dependencies [X] in the Resources block",
        ),
        (
            {"A": parameter({"Ref": "B"}), "B": parameter({"Ref": "A"})},
            "Circular dependency between resources: [A, B]",
        ),
        ({"A": parameter({"Fn::GetAtt": ["B", "Foo"]}), "B": parameter("1")}, "resource B does"),
        ({"A": parameter({"Fn::ImportValue": "none"})}, "No export named none found"),
        ({"A": parameter("1", DeletionPolicy="Keep")}, "Unrecognized DeletionPolicy Keep"),
        ({}, "At least one Resources member must be defined."),
    ],
)
def test_a_template_that_cannot_be(cf, resources, text):
    code = refused(text, cf.create_stack, StackName="never", TemplateBody=body(resources))
    assert code == "ValidationError"
    refused("does not exist", cf.describe_stacks, StackName="never")


def test_a_type_that_only_aws_has(cf):
    table = {"T": {"Type": "AWS::DynamoDB::Table", "Properties": {}}}
    text = "AWS has these types of resources, the local cloud does not: AWS::DynamoDB::Table"
    code = refused(text, cf.create_stack, StackName="never", TemplateBody=body(table))
    assert code == "NotImplemented"
    refused(text, cf.validate_template, TemplateBody=body(table))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Resources:\n  A: [1\n", "YAML not well-formed. (line 3, column 1)"),
        ("Resources:\n  A: 1\n  A: 2\n", "YAML not well-formed. (line 3, column 3)"),
        ('{"Resources": \n{]}', "JSON not well-formed. (line 2, column 2)"),
        ("just words", "unsupported structure"),
        ("Resource: {}\n", "Invalid template property or properties [Resource]"),
    ],
)
def test_a_template_that_cannot_be_read(cf, text, message):
    assert refused(message, cf.validate_template, TemplateBody=text) == "ValidationError"
    assert message in sh(f"aws cloudformation validate-template --template-body '{text}'", ok=False)


def test_capabilities(cf):
    group = {"Type": "AWS::IAM::Group"}
    named = {"Type": "AWS::IAM::Group", "Properties": {"GroupName": "named"}}
    for resource, needed in ((group, "CAPABILITY_IAM"), (named, "CAPABILITY_NAMED_IAM")):
        call = {"StackName": "able", "TemplateBody": body({"G": resource})}
        code = refused(f"Requires capabilities : [{needed}]", cf.create_stack, **call)
        assert code == "InsufficientCapabilitiesException"
        found = cf.validate_template(TemplateBody=call["TemplateBody"])
        assert found["Capabilities"] == [needed]
    call["Capabilities"] = ["CAPABILITY_IAM"]
    refused("[CAPABILITY_NAMED_IAM]", cf.create_stack, **call)
    made(cf, "able", call["TemplateBody"], Capabilities=["CAPABILITY_NAMED_IAM"])
    assert boto3.client("iam").get_group(GroupName="named")
    deleted(cf, "able")


# --- Parameters

DECLARED = {
    "Size": {"Type": "String", "Default": "small", "AllowedValues": ["small", "large"]},
    "Secret": {"Type": "String", "NoEcho": True, "MinLength": 8},
    "Count": {"Type": "Number", "Default": 3, "MinValue": 1, "MaxValue": 9},
    "Zones": {"Type": "CommaDelimitedList", "Default": "a, b,c"},
}


def given(**values):
    return [{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "Parameters: [Secret] must have values"),
        ({"Secret": "correct horse", "No": "1"}, "Parameters: [No] do not exist in the template"),
        ({"Secret": "correct horse", "Size": "huge"}, "'Size' must be one of AllowedValues"),
        ({"Secret": "short"}, "'Secret' must contain at least 8 characters"),
        ({"Secret": "correct horse", "Count": "many"}, "'Count' must be a number"),
        ({"Secret": "correct horse", "Count": "10"}, "must be a number not greater than 9"),
    ],
)
def test_values_that_parameters_do_not_take(cf, values, text):
    template = body({"A": parameter({"Ref": "Secret"})}, Parameters=DECLARED)
    call = {"StackName": "never", "TemplateBody": template, "Parameters": given(**values)}
    refused(text, cf.create_stack, **call)


def test_a_secret_is_not_shown(cf, ssm):
    template = body({"A": parameter({"Ref": "Secret"}, "/t/secret")}, Parameters=DECLARED)
    stack = made(cf, "secretive", template, Parameters=given(Secret="correct horse"))
    shown = {p["ParameterKey"]: p["ParameterValue"] for p in stack["Parameters"]}
    assert shown == {"Size": "small", "Secret": "****", "Count": "3", "Zones": "a, b,c"}
    assert ssm.get_parameter(Name="/t/secret")["Parameter"]["Value"] == "correct horse"
    said = sh("aws cloudformation describe-stack-events --stack-name secretive")
    said += sh("aws cloudformation describe-stacks --stack-name secretive")
    assert "correct horse" not in said and "****" in said


def test_parameters_that_name_a_value_in_the_store(cf, ssm):
    ssm.put_parameter(Name="/t/given", Value="from the store", Type="String")
    declared = {
        "Stored": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/t/given"},
        "Net": {"Type": "AWS::EC2::VPC::Id"},
    }
    template = body({"A": parameter({"Ref": "Stored"}, "/t/taken")}, Parameters=declared)
    call = {"StackName": "lookup", "TemplateBody": template}
    text = "Unable to fetch parameters [/t/none] from parameter store for this account."
    refused(text, cf.create_stack, Parameters=given(Net="vpc-0", Stored="/t/none"), **call)
    vpc = boto3.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    stack = made(cf, "lookup", template, Parameters=given(Net=vpc))
    assert ssm.get_parameter(Name="/t/taken")["Parameter"]["Value"] == "from the store"
    assert stack["Parameters"][0]["ResolvedValue"] == "from the store"


# --- Update


def value(ssm, name):
    return ssm.get_parameter(Name=name)["Parameter"]["Value"]


def test_update_in_place_and_no_update(cf, ssm):
    made(cf, "changing", body({"A": parameter("1", "/t/a"), "B": parameter("1", "/t/b")}))
    template = body({"A": parameter("2", "/t/a"), "C": parameter("1", "/t/c")})
    found = updated(cf, "changing", template)
    assert (value(ssm, "/t/a"), value(ssm, "/t/c")) == ("2", "1") and found["LastUpdatedTime"]
    assert steps(cf, "changing")[-4:] == [
        ("changing", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"),
        ("B", "DELETE_IN_PROGRESS"),
        ("B", "DELETE_COMPLETE"),
        ("changing", "UPDATE_COMPLETE"),
    ]
    text = "No updates are to be performed."
    refused(text, cf.update_stack, StackName="changing", TemplateBody=template)
    refused(text, cf.update_stack, StackName="changing", UsePreviousTemplate=True)


def test_previous_template_and_values(cf, ssm):
    declared = {"One": {"Type": "String"}, "Two": {"Type": "String"}}
    text = {"Fn::Sub": "${One}-${Two}"}
    template = body({"A": parameter(text, "/t/previous")}, Parameters=declared)
    made(cf, "previous", template, Parameters=given(One="1", Two="2"))
    cf.update_stack(
        StackName="previous",
        UsePreviousTemplate=True,
        Parameters=[{"ParameterKey": "One", "UsePreviousValue": True}, *given(Two="3")],
    )
    assert settled(cf, "previous")["StackStatus"] == "UPDATE_COMPLETE"
    assert value(ssm, "/t/previous") == "1-3"


def test_replacement_comes_first_and_cleanup_last(cf, ssm):
    made(
        cf, "replaced", body({"A": parameter("1", "/t/old"), "B": parameter({"Ref": "A"}, "/t/rb")})
    )
    updated(
        cf, "replaced", body({"A": parameter("1", "/t/new"), "B": parameter({"Ref": "A"}, "/t/rb")})
    )
    assert value(ssm, "/t/rb") == "/t/new"
    told = events(cf, "replaced")
    assert any("hence creating one" in why for *_, why in told)
    names = [(name, status) for name, status, _ in told]
    assert names.index(("replaced", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")) < names.index(
        ("A", "DELETE_COMPLETE")
    )
    with pytest.raises(ClientError, match="ParameterNotFound"):
        ssm.get_parameter(Name="/t/old")


def test_an_update_that_fails_is_taken_back(cf, ssm):
    same = {"Keep": parameter("1", "/t/keep"), "Move": parameter("1", "/t/move-1")}
    made(cf, "back", body(same))
    bad = parameter("1", DependsOn=["Keep", "Move", "New"])
    bad["Properties"]["Type"] = "Text"
    new = {
        "Keep": parameter("2", "/t/keep"),
        "Move": parameter("1", "/t/move-2"),
        "New": parameter("1", "/t/new-one"),
        "Bad": bad,
    }
    updated(cf, "back", body(new), "UPDATE_ROLLBACK_COMPLETE")
    assert (value(ssm, "/t/keep"), value(ssm, "/t/move-1")) == ("1", "1")
    for name in ("/t/move-2", "/t/new-one"):
        with pytest.raises(ClientError, match="ParameterNotFound"):
            ssm.get_parameter(Name=name)
    told = events(cf, "back")
    states = [status for name, status, _ in told if name == "back"]
    assert states[-4:] == [
        "UPDATE_IN_PROGRESS",
        "UPDATE_ROLLBACK_IN_PROGRESS",
        "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
        "UPDATE_ROLLBACK_COMPLETE",
    ]
    why = {status: why for name, status, why in told if name == "back"}
    text = "The following resource(s) failed to create: [Bad]."
    assert text in why["UPDATE_ROLLBACK_IN_PROGRESS"]
    listed = cf.list_stack_resources(StackName="back")["StackResourceSummaries"]
    found = {r["LogicalResourceId"]: r["PhysicalResourceId"] for r in listed}
    assert found == {"Keep": "/t/keep", "Move": "/t/move-1"}
    updated(cf, "back", body({**same, "Keep": parameter("3", "/t/keep")}))  # it can go on


def test_a_resource_with_a_name_cannot_be_replaced(cf):
    one = {"Type": "AWS::ECR::Repository", "Properties": {"RepositoryName": "fixed"}}
    made(cf, "named", body({"R": one}))
    one["Properties"]["EncryptionConfiguration"] = {"EncryptionType": "KMS"}
    updated(cf, "named", body({"R": one}), "UPDATE_ROLLBACK_COMPLETE")
    assert any("when a custom-named resource" in why for *_, why in events(cf, "named"))
    deleted(cf, "named")


def test_an_update_that_only_aws_can_do(cf):
    one = {"RepositoryName": "described", "RepositoryDescription": "one"}
    resource = {"Type": "AWS::CodeCommit::Repository", "Properties": one}
    made(cf, "described", body({"R": resource}))
    one["RepositoryDescription"] = "two"
    updated(cf, "described", body({"R": resource}), "UPDATE_ROLLBACK_COMPLETE")
    text = "The local cloud cannot update RepositoryDescription"
    assert any(text in why for *_, why in events(cf, "described"))
    deleted(cf, "described")


def test_a_type_cannot_change(cf):
    made(cf, "typed", body({"A": parameter("1")}))
    text = "Update of resource type is not permitted."
    template = body({"A": {"Type": "AWS::SNS::Topic"}})
    refused(text, cf.update_stack, StackName="typed", TemplateBody=template)


# --- Deletion


def test_what_is_kept_and_what_cannot_be_deleted(cf, ssm):
    s3 = boto3.client("s3")
    resources = {
        "Kept": parameter("1", "/t/retained", DeletionPolicy="Retain"),
        "Full": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "full-bucket"}},
    }
    found = made(cf, "stubborn", body(resources))
    s3.put_object(Bucket="full-bucket", Key="a", Body=b"a")
    deleted(cf, "stubborn", "DELETE_FAILED")
    why = {(name, status): why for name, status, why in events(cf, "stubborn")}
    assert "not empty" in why["Full", "DELETE_FAILED"]
    assert why["stubborn", "DELETE_FAILED"] == (
        "The following resource(s) failed to delete: [Full]."
    )
    assert ("Kept", "DELETE_SKIPPED") in why
    deleted(cf, "stubborn", RetainResources=["Full"])
    assert value(ssm, "/t/retained") == "1" and s3.head_bucket(Bucket="full-bucket")
    assert found["StackId"] in {
        s["StackId"]
        for s in cf.list_stacks(StackStatusFilter=["DELETE_COMPLETE"])["StackSummaries"]
    }


# --- Exports


def test_exports_bind_stacks_together(cf):
    out = {"Name": {"Value": {"Ref": "A"}, "Export": {"Name": "the-name"}}}
    one = {"A": parameter("1", "/t/exported")}
    made(cf, "giver", body(one, Outputs=out))
    made(cf, "taker", body({"B": parameter({"Fn::ImportValue": "the-name"}, "/t/import")}))
    (export,) = [e for e in cf.list_exports()["Exports"] if e["Name"] == "the-name"]
    assert export["Value"] == "/t/exported"
    assert cf.list_imports(ExportName="the-name")["Imports"] == ["taker"]
    text = "Export the-name cannot be deleted as it is in use by taker"
    refused(text, cf.delete_stack, StackName="giver")
    refused(text, cf.update_stack, StackName="giver", TemplateBody=body(one))
    made(cf, "rival", body({"A": parameter("1")}, Outputs=out), "ROLLBACK_COMPLETE")
    assert any("already exported by stack giver" in why for *_, why in events(cf, "rival"))
    deleted(cf, "taker")
    deleted(cf, "giver")


# --- Change sets


def test_a_change_set_is_read_before_it_is_executed(cf, ssm):
    sg = {
        "Type": "AWS::EC2::SecurityGroup",
        "Properties": {"GroupDescription": "one"},
    }
    resources = {
        "A": parameter("1", "/t/cs-a"),
        "B": parameter("1", "/t/cs-b"),
        "G": sg,
        "D": parameter({"Fn::GetAtt": ["G", "GroupId"]}, "/t/cs-d"),
    }
    made(cf, "planned", body(resources))
    new = json.loads(json.dumps(resources))
    del new["B"]
    new["A"]["Properties"]["Value"] = "2"
    new["G"]["Properties"]["GroupDescription"] = "two"
    new["C"] = parameter("1", "/t/cs-c")
    change = cf.create_change_set(StackName="planned", ChangeSetName="next", TemplateBody=body(new))
    cf.get_waiter("change_set_create_complete").wait(ChangeSetName=change["Id"])
    found = cf.describe_change_set(StackName="planned", ChangeSetName="next")
    changes = {
        c["ResourceChange"]["LogicalResourceId"]: c["ResourceChange"] for c in found["Changes"]
    }
    assert {name: c["Action"] for name, c in changes.items()} == {
        "A": "Modify",
        "B": "Remove",
        "C": "Add",
        "D": "Modify",
        "G": "Modify",
    }
    assert changes["A"]["Replacement"] == "False" and changes["G"]["Replacement"] == "True"
    (detail,) = changes["G"]["Details"]
    assert detail["Target"]["Name"] == "GroupDescription"
    assert detail["Target"]["RequiresRecreation"] == "Always"
    never = {"RequiresRecreation": "Never"}
    (detail,) = changes["D"]["Details"]
    assert detail["Target"] == {"Attribute": "Properties", "Name": "Value"} | never
    assert value(ssm, "/t/cs-a") == "1" and value(ssm, "/t/cs-b") == "1"  # nothing done yet
    group = value(ssm, "/t/cs-d")
    cf.execute_change_set(StackName="planned", ChangeSetName="next")
    assert settled(cf, "planned")["StackStatus"] == "UPDATE_COMPLETE"
    assert value(ssm, "/t/cs-a") == "2" and value(ssm, "/t/cs-d") != group
    refused("does not exist", cf.describe_change_set, StackName="planned", ChangeSetName="next")


def test_a_change_set_without_changes(cf):
    template = body({"A": parameter("1")})
    made(cf, "still", template)
    cf.create_change_set(StackName="still", ChangeSetName="none", TemplateBody=template)
    found = cf.describe_change_set(StackName="still", ChangeSetName="none")
    assert (found["Status"], found["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert found["StatusReason"].startswith("The submitted information didn't contain changes")
    with pytest.raises(ClientError, match="InvalidChangeSetStatus"):
        cf.execute_change_set(StackName="still", ChangeSetName="none")
    cf.delete_change_set(StackName="still", ChangeSetName="none")
    assert cf.list_change_sets(StackName="still")["Summaries"] == []


def test_a_change_set_that_creates_makes_one_stack(cf, ssm):
    call = {"StackName": "reviewed", "ChangeSetName": "first", "ChangeSetType": "CREATE"}
    cf.create_change_set(TemplateBody=body({"A": parameter("1", "/t/review")}), **call)
    (stack,) = cf.describe_stacks(StackName="reviewed")["Stacks"]
    assert stack["StackStatus"] == "REVIEW_IN_PROGRESS"
    with pytest.raises(ClientError, match="ParameterNotFound"):
        value(ssm, "/t/review")
    cf.execute_change_set(StackName="reviewed", ChangeSetName="first")
    assert settled(cf, stack["StackId"])["StackStatus"] == "CREATE_COMPLETE"
    assert value(ssm, "/t/review") == "1"
    assert sum(s["StackName"] == "reviewed" for s in cf.describe_stacks()["Stacks"]) == 1


# --- The command


def test_deploy_package_and_wait(cf, ssm, tmp_path):
    file = tmp_path / "stack.yaml"
    file.write_text(
        "Parameters: {Word: {Type: String, Default: one}}\n"
        "Resources:\n  A:\n    Type: AWS::SSM::Parameter\n"
        "    Properties: {Type: String, Name: /t/deployed, Value: !Ref Word}\n"
    )
    deploy = f"aws cloudformation deploy --stack-name deployed --template-file {file}"
    assert "Successfully created/updated stack - deployed" in sh(deploy)
    assert value(ssm, "/t/deployed") == "one"
    assert "No changes to deploy" in sh(deploy + " --no-fail-on-empty-changeset")
    sh(f"{deploy} --parameter-overrides Word=two --tags part=four")
    assert value(ssm, "/t/deployed") == "two"
    (stack,) = cf.describe_stacks(StackName="deployed")["Stacks"]
    assert stack["Tags"] == [{"Key": "part", "Value": "four"}]
    sh("aws cloudformation delete-stack --stack-name deployed")
    sh("aws cloudformation wait stack-delete-complete --stack-name deployed")
    boto3.client("s3").create_bucket(Bucket="packages")
    (tmp_path / "code").mkdir()
    (tmp_path / "code/app.py").write_text("def handler(event, context): return event['n'] + 1\n")
    file.write_text(
        "Resources:\n  R:\n    Type: AWS::IAM::Role\n    Properties:\n"
        f"      AssumeRolePolicyDocument: {TRUST}\n"
        "  F:\n    Type: AWS::Lambda::Function\n    Properties:\n"
        "      FunctionName: packaged\n      Handler: app.handler\n      Runtime: python3.13\n"
        "      Role: !GetAtt R.Arn\n      Code: ./code\n"
    )
    out = tmp_path / "packaged.yaml"
    sh(
        f"aws cloudformation package --template-file {file} --s3-bucket packages "
        f"--output-template-file {out}"
    )
    sh(
        f"aws cloudformation deploy --stack-name packaged --template-file {out} "
        "--capabilities CAPABILITY_IAM"
    )
    answer = boto3.client("lambda").invoke(FunctionName="packaged", Payload=b'{"n": 41}')
    assert json.load(answer["Payload"]) == 42


def test_templates_from_s3_and_back(cf):
    boto3.client("s3").create_bucket(Bucket="templates")
    template = (TEMPLATES / "bucket.yaml").read_text()
    boto3.client("s3").put_object(Bucket="templates", Key="bucket.yaml", Body=template)
    url = "https://templates.s3.us-east-1.amazonaws.com/bucket.yaml"
    cf.create_stack(StackName="from-s3", TemplateURL=url)
    stack = settled(cf, "from-s3")
    bucket = outputs(stack)["BucketName"]
    assert bucket.startswith("from-s3-notes-")
    versioning = boto3.client("s3").get_bucket_versioning(Bucket=bucket)
    assert versioning["Status"] == "Enabled"
    assert cf.get_template(StackName="from-s3")["TemplateBody"] == template
    summary = cf.get_template_summary(StackName="from-s3")
    assert summary["ResourceTypes"] == ["AWS::S3::Bucket"]
    text = "TemplateURL must be a supported URL."
    refused(text, cf.create_stack, StackName="x", TemplateURL="https://example.com/a.yaml")
    refused("S3 error", cf.create_stack, StackName="x", TemplateURL=url + "x")


# --- The course's templates


def test_the_web_server_template(cf):
    ssm, ec2 = boto3.client("ssm"), boto3.client("ec2")
    template = (TEMPLATES / "web-server.yaml").read_text()
    values = json.loads((TEMPLATES / "web-server.parameters.json").read_text())
    assert ssm  # the image comes from the Parameter Store
    text = "letters, digits, spaces and . , ! - only"
    call = {"StackName": "web", "TemplateBody": template}
    refused(text, cf.create_stack, Parameters=given(Greeting="$(reboot)"), **call)
    found = made(cf, "web", template, Parameters=values)
    out = outputs(found)
    (reservation,) = ec2.describe_instances(InstanceIds=[out["InstanceId"]])["Reservations"]
    (instance,) = reservation["Instances"]
    assert instance["State"]["Name"] == "running" and instance["InstanceType"] == "t3.nano"
    assert instance["VpcId"] == out["NetworkId"]
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert tags["Name"] == "web-web" and tags["aws:cloudformation:stack-name"] == "web"
    assert out["Url"] == f"http://{instance['PublicDnsName']}:8080/"
    script = ec2.describe_instance_attribute(InstanceId=out["InstanceId"], Attribute="userData")
    assert script["UserData"]["Value"]
    deleted(cf, "web")
    refused("does not exist", ec2.describe_vpcs, VpcIds=[out["NetworkId"]])


def test_the_broken_template_is_mended_fault_by_fault(cf):
    text = (TEMPLATES / "broken.yaml").read_text()
    message = "Unresolved resource dependencies [Report] in the Resources block of the template"
    refused(message, cf.create_stack, StackName="broken", TemplateBody=text)
    text = text.replace("!Ref Report\n", "!Ref Reports\n")
    made(cf, "broken", text, "ROLLBACK_COMPLETE")
    assert any(why == "Encountered unsupported property Tag" for *_, why in events(cf, "broken"))
    deleted(cf, "broken")
    text = text.replace("Tag:", "Tags:")
    made(cf, "broken", text, "ROLLBACK_COMPLETE")
    assert any("'Text' at 'type' failed" in why for *_, why in events(cf, "broken"))
    deleted(cf, "broken")
    found = made(cf, "broken", text.replace("Type: Text", "Type: String"))
    bucket = outputs(found)["BucketName"]
    rules = boto3.client("s3").get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert rules[0]["Expiration"]["Days"] == 30
    deleted(cf, "broken")


@pytest.mark.parametrize("source", ["", "sources"])
def test_the_delivery_roles_do_their_own_work_only(cf, source):
    iam, here = boto3.client("iam"), "us-east-1:123456789012"
    names = {"Name": "shop", "Artifacts": "handover", "SourceRepository": "code", "Images": "web"}
    values = given(**names, Cluster="prod", SourceBucket=source)
    call = {"StackName": "roles", "TemplateBody": (TEMPLATES / "delivery-roles.yaml").read_text()}
    refused("CAPABILITY_IAM", cf.create_stack, Parameters=values, **call)
    roles = outputs(
        made(cf, "roles", call["TemplateBody"], Parameters=values, Capabilities=["CAPABILITY_IAM"])
    )

    def may(role, action, resource):
        ask = {"ActionNames": [action], "ResourceArns": [f"arn:aws:{resource}"]}
        arn = roles[f"{role}Role"]
        (said,) = iam.simulate_principal_policy(PolicySourceArn=arn, **ask)["EvaluationResults"]
        return said["EvalDecision"] == "allowed"

    assert may("Build", "ssm:GetParameters", f"ssm:{here}:parameter/shop/key")
    assert not may("Build", "ssm:GetParameters", f"ssm:{here}:parameter/shopping/key")
    assert may("Build", "ecr:PutImage", f"ecr:{here}:repository/web")
    assert not may("Deploy", "ecr:PutImage", f"ecr:{here}:repository/web")
    assert may("Pipeline", "codebuild:StartBuild", f"codebuild:{here}:project/shop-test")
    assert not may("Build", "codebuild:StartBuild", f"codebuild:{here}:project/shop-test")
    assert may("Pipeline", "s3:GetObject", "s3:::sources/app.zip") == bool(source)
    assert may("Deploy", "eks:DescribeCluster", f"eks:{here}:cluster/prod")
    trust = iam.get_role(RoleName=roles["DeployRole"].split("/")[-1])["Role"]
    assert roles["PipelineRole"] in json.dumps(trust["AssumeRolePolicyDocument"])
    deleted(cf, "roles")


# --- Lambda and custom resources

HANDLER = """
import cfnresponse
def handler(event, context):
    wish = event["ResourceProperties"].get("Wish")
    print("asked to", event["RequestType"], event.get("PhysicalResourceId"))
    if wish == "silence":
        return
    if wish == "crash" and event["RequestType"] != "Delete":
        cfnresponse.send(event, context, cfnresponse.FAILED, {}, "none", reason="no such wish")
        return
    cfnresponse.send(event, context, cfnresponse.SUCCESS, {"Echo": wish}, "thing-" + wish)
"""


def with_function(wish, **more):
    role = {
        "AssumeRolePolicyDocument": {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": "sts:AssumeRole",
                    "Principal": {"Service": "lambda.amazonaws.com"},
                }
            ],
        }
    }
    function = {
        "Runtime": "python3.12",
        "Handler": "index.handler",
        "Timeout": 20,
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        "Code": {"ZipFile": HANDLER},
    }
    thing = {"ServiceToken": {"Fn::GetAtt": "Function.Arn"}, "Wish": wish, **more}
    resources = {
        "Role": {"Type": "AWS::IAM::Role", "Properties": role},
        "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
        "Thing": {"Type": "Custom::Thing", "Properties": thing},
    }  # fmt: skip
    out = {"Echo": {"Value": {"Fn::GetAtt": ["Thing", "Echo"]}}, "Id": {"Value": {"Ref": "Thing"}}}
    return body(resources, Outputs=out)


def test_a_custom_resource_is_made_updated_and_deleted(cf):
    call = {"Capabilities": ["CAPABILITY_IAM"]}
    stack = made(cf, "custom", with_function("one"), **call)
    assert outputs(stack) == {"Echo": "one", "Id": "thing-one"}
    stack = updated(cf, "custom", with_function("two"), **call)
    assert outputs(stack) == {"Echo": "two", "Id": "thing-two"}
    assert ("Thing", "DELETE_COMPLETE") in steps(cf, "custom")  # the old one
    updated(cf, "custom", with_function("crash"), "UPDATE_ROLLBACK_COMPLETE", **call)
    resources = cf.describe_stack_resources(StackName="custom", LogicalResourceId="Function")
    function = resources["StackResources"][0]["PhysicalResourceId"]
    deleted(cf, "custom")
    logs = boto3.client("logs")

    def asked():
        """Each call's log comes when the call is over, which is after its answer."""
        found = logs.filter_log_events(logGroupName=f"/aws/lambda/{function}")["events"]
        said = [one["message"] for one in found if one["message"].startswith("asked to")]
        return said if "asked to Delete thing-two" in said else None

    said = until(asked)
    assert said[0] == "asked to Create None" and "asked to Update thing-one" in said
    assert "asked to Delete thing-one" in said


def test_a_custom_resource_that_fails_says_why(cf):
    made(
        cf, "failing", with_function("crash"), "ROLLBACK_COMPLETE", Capabilities=["CAPABILITY_IAM"]
    )
    text = "Received response status [FAILED] from custom resource. Message returned: no such wish"
    assert any(text in why for *_, why in events(cf, "failing"))


def test_a_custom_resource_that_never_answers(cf):
    template = with_function("silence", ServiceTimeout=2)
    made(
        cf,
        "silent",
        template,
        "ROLLBACK_COMPLETE",
        Capabilities=["CAPABILITY_IAM"],
    )
    text = "CloudFormation did not receive a response from your Custom Resource."
    assert any(why.startswith(text) for *_, why in events(cf, "silent"))


def function(name, code, **more):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("app.py", code)
    trust = {"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"Service": "lambda.amazonaws.com"}}]}  # fmt: skip
    role = boto3.client("iam").create_role(
        RoleName=f"for-{name}", AssumeRolePolicyDocument=json.dumps(trust)
    )["Role"]["Arn"]
    boto3.client("lambda").create_function(
        FunctionName=name,
        Role=role,
        Runtime="python3.12",
        Handler="app.handler",
        Code={"ZipFile": buffer.getvalue()},
        **more,
    )
    return role


def test_a_function_runs_as_its_role(tmp_path):
    code = "import boto3, os\ndef handler(event, context):\n"
    code += "    arn = boto3.client('sts').get_caller_identity()['Arn']\n"
    code += "    print('called', context.function_name)\n"
    code += "    return [arn, os.environ['COLOUR'], event]\n"
    function("who", code, Environment={"Variables": {"COLOUR": "red"}}, Timeout=20)
    out = tmp_path / "answer.json"
    said = sh(
        f"aws lambda invoke --function-name who --payload '[1]' --log-type Tail "
        f"--query LogResult --output text {out} | base64 -d"
    )
    arn, colour, event = json.loads(out.read_text())
    assert arn.startswith("arn:aws:sts::123456789012:assumed-role/for-who/")
    assert (colour, event) == ("red", [1]) and "called who" in said


def test_functions_that_fail():
    client = boto3.client("lambda")
    function("raises", "def handler(event, context): raise ValueError('not today')\n", Timeout=20)
    answer = client.invoke(FunctionName="raises")
    assert answer["FunctionError"] == "Unhandled"
    said = json.load(answer["Payload"])
    assert (said["errorType"], said["errorMessage"]) == ("ValueError", "not today")
    function("sleeps", "import time\ndef handler(event, context): time.sleep(60)\n", Timeout=1)
    said = json.load(client.invoke(FunctionName="sleeps")["Payload"])
    assert said["errorMessage"].endswith("Task timed out after 1.00 seconds")
    function("exits", "import os\ndef handler(event, context): os._exit(3)\n", Timeout=20)
    said = json.load(client.invoke(FunctionName="exits")["Payload"])
    assert said["errorType"] == "Runtime.ExitError" and said["errorMessage"].endswith("status 3")
    with pytest.raises(ClientError, match="functions are in Python"):
        client.create_function(
            FunctionName="other",
            Role="arn:aws:iam::123456789012:role/for-exits",
            Runtime="nodejs22.x",
            Handler="a.b",
            Code={"ZipFile": b"x"},
        )


# --- In whose name


def test_the_engine_calls_in_the_name_of_the_caller_or_of_a_role(cf, shared_home):
    def keys(name):
        """The keys that signed the calls made for a stack's parameter."""
        before = len((shared_home / "cloud/requests.log").read_text().splitlines())
        yield
        lines = (shared_home / "cloud/requests.log").read_text().splitlines()[before:]
        yield {line.split()[1] for line in lines if name in line}

    iam = boto3.client("iam")
    iam.create_user(UserName="builder")
    key = iam.create_access_key(UserName="builder")["AccessKey"]
    iam.put_user_policy(
        UserName="builder",
        PolicyName="all",
        PolicyDocument=json.dumps(
            {"Version": "2012-10-17",
             "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        ),
    )  # fmt: skip
    theirs = boto3.client(
        "cloudformation",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    noted = keys("PutParameter")
    next(noted)
    made(theirs, "theirs", body({"A": parameter("1")}))
    assert next(noted) == {key["AccessKeyId"]}
    trust = {"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"Service": "cloudformation.amazonaws.com"}}]}  # fmt: skip
    arn = iam.create_role(RoleName="stacks", AssumeRolePolicyDocument=json.dumps(trust))
    arn = arn["Role"]["Arn"]
    iam.attach_role_policy(RoleName="stacks", PolicyArn=policy(iam, "everything"))
    noted = keys("PutParameter")
    next(noted)
    stack = made(cf, "by-role", body({"A": parameter("1")}), RoleARN=arn)
    (used,) = next(noted)
    assert used.startswith("ASIA") and stack["RoleARN"] == arn
    deleted(cf, "by-role")


def test_what_the_caller_may_not_do_the_stack_may_not_do(cf):
    iam = boto3.client("iam")
    iam.create_user(UserName="stacker")
    key = iam.create_access_key(UserName="stacker")["AccessKey"]
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "cloudformation:*", "Resource": "*"}],
    }
    iam.put_user_policy(
        UserName="stacker", PolicyName="stacks", PolicyDocument=json.dumps(document)
    )
    theirs = boto3.client(
        "cloudformation",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    template = body({"A": parameter("1")})
    made(theirs, "denied", template, "ROLLBACK_COMPLETE")
    why = " ".join(why for *_, why in events(cf, "denied"))
    assert "stacker is not authorized to perform: ssm:PutParameter" in why
    role = "arn:aws:iam::123456789012:role/for-who"  # which only Lambda may be
    text = f"Role {role} is invalid or cannot be assumed"
    refused(text, cf.create_stack, StackName="x", TemplateBody=template, RoleARN=role)


def policy(iam, name):
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
    }
    made = iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(document))
    return made["Policy"]["Arn"]


# --- Templates of the kinds that are published

SAMPLE = r"""
AWSTemplateFormatVersion: "2010-09-09"
Metadata: {License: Apache-2.0}
Parameters:
  KeyName:
    Description: Name of an existing EC2 KeyPair
    Type: AWS::EC2::KeyPair::KeyName
    ConstraintDescription: must be the name of an existing EC2 KeyPair.
  InstanceType:
    Type: String
    Default: t3.small
    AllowedValues: [t3.micro, t3.small]
    ConstraintDescription: must be a valid EC2 instance type.
  SSHLocation:
    Type: String
    MinLength: "9"
    MaxLength: "18"
    Default: 0.0.0.0/0
    AllowedPattern: (\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})/(\d{1,2})
    ConstraintDescription: must be a valid IP CIDR range of the form x.x.x.x/x.
  LatestAmiId:
    Type: AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>
    Default: /aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64
Resources:
  EC2Instance:
    Type: AWS::EC2::Instance
    Properties:
      InstanceType: !Ref InstanceType
      SecurityGroups: [!Ref InstanceSecurityGroup]
      KeyName: !Ref KeyName
      ImageId: !Ref LatestAmiId
  InstanceSecurityGroup:
    Type: AWS::EC2::SecurityGroup
    Properties:
      GroupDescription: Enable SSH access via port 22
      SecurityGroupIngress:
        - {IpProtocol: tcp, FromPort: "22", ToPort: "22", CidrIp: !Ref SSHLocation}
Outputs:
  InstanceId: {Value: !Ref EC2Instance}
  AZ: {Value: !GetAtt EC2Instance.AvailabilityZone}
  PublicIP: {Value: !GetAtt [EC2Instance, PublicIp]}
"""


def test_an_instance_with_a_security_group(cf):
    ec2 = boto3.client("ec2")
    call = {"StackName": "sample", "TemplateBody": SAMPLE}
    ec2.create_key_pair(KeyName="mine")
    values = given(KeyName="mine", SSHLocation="anywhere!")
    text = "must be a valid IP CIDR range of the form x.x.x.x/x."
    refused(text, cf.create_stack, Parameters=values, **call)
    stack = made(cf, "sample", SAMPLE, Parameters=given(KeyName="mine"))
    out = outputs(stack)
    found = ec2.describe_instances(InstanceIds=[out["InstanceId"]])
    (instance,) = found["Reservations"][0]["Instances"]
    assert instance["PublicIpAddress"] == out["PublicIP"] and instance["KeyName"] == "mine"
    (group,) = instance["SecurityGroups"]
    assert group["GroupName"].startswith("sample-InstanceSecurityGroup-")
    (group,) = ec2.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"]
    assert [rule["FromPort"] for rule in group["IpPermissions"]] == [22]
    deleted(cf, "sample")


PIPELINE = """
AWSTemplateFormatVersion: "2010-09-09"
Parameters:
  SourceKey: {Type: String, Default: source.zip}
Resources:
  Store:
    Type: AWS::S3::Bucket
    Properties:
      VersioningConfiguration: {Status: Enabled}
      PublicAccessBlockConfiguration: {BlockPublicAcls: "true", IgnorePublicAcls: true}
  StorePolicy:
    Type: AWS::S3::BucketPolicy
    Properties:
      Bucket: !Ref Store
      PolicyDocument:
        Version: 2012-10-17
        Statement:
          - Effect: Deny
            Principal: "*"
            Action: s3:*
            Resource: !Sub "${Store.Arn}/*"
            Condition: {Bool: {aws:SecureTransport: false}}
  Images:
    Type: AWS::ECR::Repository
    Properties: {ImageScanningConfiguration: {ScanOnPush: true}}
  BuildRole:
    Type: AWS::IAM::Role
    Properties:
      Path: /
      AssumeRolePolicyDocument:
        Version: 2012-10-17
        Statement:
          - Effect: Allow
            Principal: {Service: [codebuild.amazonaws.com]}
            Action: sts:AssumeRole
  PipelineRole:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: 2012-10-17
        Statement:
          - Sid: 1
            Effect: Allow
            Principal: {Service: codepipeline.amazonaws.com}
            Action: [sts:AssumeRole]
      Policies:
        - PolicyName: pipeline
          PolicyDocument:
            Version: 2012-10-17
            Statement: [{Effect: Allow, Action: ["s3:*", "codebuild:*"], Resource: "*"}]
  BuildPolicy:
    Type: AWS::IAM::Policy
    Properties:
      PolicyName: build
      Roles: [!Ref BuildRole]
      PolicyDocument:
        Version: 2012-10-17
        Statement: [{Effect: Allow, Action: ["s3:*", "logs:*", "ecr:*"], Resource: "*"}]
  Project:
    Type: AWS::CodeBuild::Project
    DependsOn: BuildPolicy
    Properties:
      Name: !Sub ${AWS::StackName}-build
      ServiceRole: !Ref BuildRole
      Artifacts: {Type: CODEPIPELINE}
      Environment:
        Type: LINUX_CONTAINER
        ComputeType: BUILD_GENERAL1_SMALL
        Image: aws/codebuild/standard:7.0
        PrivilegedMode: true
        EnvironmentVariables:
          - {Name: REPOSITORY_URI, Value: !GetAtt Images.RepositoryUri}
      Source:
        Type: CODEPIPELINE
        BuildSpec: |
          version: 0.2
          phases: {build: {commands: [echo hello]}}
  Pipeline:
    Type: AWS::CodePipeline::Pipeline
    Properties:
      RoleArn: !GetAtt PipelineRole.Arn
      ArtifactStore: {Type: S3, Location: !Ref Store}
      Stages:
        - Name: Source
          Actions:
            - Name: Source
              ActionTypeId: {Category: Source, Owner: AWS, Version: 1, Provider: S3}
              Configuration:
                S3Bucket: !Ref Store
                S3ObjectKey: !Ref SourceKey
                PollForSourceChanges: false
              OutputArtifacts: [{Name: Code}]
              RunOrder: 1
        - Name: Build
          Actions:
            - Name: Build
              ActionTypeId: {Category: Build, Owner: AWS, Version: "1", Provider: CodeBuild}
              Configuration: {ProjectName: !Ref Project}
              InputArtifacts: [{Name: Code}]
              RunOrder: "1"
  OnUpload:
    Type: AWS::Events::Rule
    Properties:
      EventPattern: {source: [aws.s3], detail-type: [Object Created]}
      State: ENABLED
      Targets:
        - Arn: !Sub arn:aws:codepipeline:${AWS::Region}:${AWS::AccountId}:${Pipeline}
          Id: pipeline
          RoleArn: !GetAtt BuildRole.Arn
  Logs:
    Type: AWS::Logs::LogGroup
    DeletionPolicy: Delete
    Properties: {LogGroupName: !Sub "/t/${AWS::StackName}", RetentionInDays: 7}
  Alarm:
    Type: AWS::SNS::Topic
    Properties: {DisplayName: builds}
  Cleaner:
    Type: AWS::Lambda::Function
    Properties:
      Handler: index.handler
      Runtime: python3.12
      Timeout: 30
      Role: !GetAtt CleanerRole.Arn
      Code:
        ZipFile: |
          import boto3, cfnresponse
          def handler(event, context):
              try:
                  if event["RequestType"] == "Delete":
                      name = event["ResourceProperties"]["Bucket"]
                      boto3.resource("s3").Bucket(name).object_versions.delete()
                  cfnresponse.send(event, context, cfnresponse.SUCCESS, {})
              except Exception as problem:
                  print(problem)
                  cfnresponse.send(event, context, cfnresponse.FAILED, {})
  CleanerRole:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: 2012-10-17
        Statement:
          - {Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: sts:AssumeRole}
      ManagedPolicyArns: [arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole]
      Policies:
        - PolicyName: clean
          PolicyDocument:
            Version: 2012-10-17
            Statement: [{Effect: Allow, Action: "s3:*", Resource: "*"}]
  CleanerPermission:
    Type: AWS::Lambda::Permission
    Properties:
      FunctionName: !GetAtt Cleaner.Arn
      Action: lambda:InvokeFunction
      Principal: s3.amazonaws.com
      SourceAccount: !Ref AWS::AccountId
  Cleaned:
    Type: AWS::CloudFormation::CustomResource
    Properties: {ServiceToken: !GetAtt Cleaner.Arn, Bucket: !Ref Store}
Outputs:
  Store: {Value: !Ref Store}
  Project: {Value: !Ref Project}
  Pipeline: {Value: !Ref Pipeline}
"""


def test_a_pipeline_with_a_build_and_a_custom_resource(cf):
    stack = made(cf, "pipes", PIPELINE, Capabilities=["CAPABILITY_IAM"])
    out = outputs(stack)
    (project,) = boto3.client("codebuild").batch_get_projects(names=[out["Project"]])["projects"]
    assert project["environment"]["image"] == "aws/codebuild/standard:7.0"
    assert ":role/pipes-BuildRole-" in project["serviceRole"]
    pipeline = boto3.client("codepipeline").get_pipeline(name=out["Pipeline"])["pipeline"]
    source = pipeline["stages"][0]["actions"][0]
    assert source["configuration"]["PollForSourceChanges"] == "false"
    assert source["actionTypeId"]["version"] == "1"
    (rule,) = boto3.client("events").list_rules(NamePrefix="pipes-OnUpload")["Rules"]
    assert json.loads(rule["EventPattern"])["source"] == ["aws.s3"]
    s3 = boto3.client("s3")
    s3.put_object(Bucket=out["Store"], Key="source.zip", Body=b"PK")
    changed = PIPELINE.replace("RetentionInDays: 7", "RetentionInDays: 14")
    updated(cf, "pipes", changed, Capabilities=["CAPABILITY_IAM"])
    groups = boto3.client("logs").describe_log_groups(logGroupNamePrefix="/t/pipes")["logGroups"]
    assert [group["retentionInDays"] for group in groups] == [14]
    deleted(cf, "pipes")  # although its bucket was not empty
    assert out["Store"] not in [b["Name"] for b in s3.list_buckets()["Buckets"]]


def test_functions_end_with_the_cloud(home):
    cloud.start()
    function("endless", "import time\ndef handler(event, context): time.sleep(600)\n", Timeout=900)
    boto3.client("lambda").invoke(FunctionName="endless", InvocationType="Event")
    while not [entry for entry in ledger.entries() if entry.name == "Lambda function endless"]:
        time.sleep(0.05)
    assert ledger.down() == []
