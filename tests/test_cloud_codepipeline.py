"""CodePipeline on the local cloud: pipelines that run, and what starts them."""

import io
import json
import uuid
import zipfile

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from waiting import until

from helpers import cloud
from helpers.cloud.codepipeline import variables

ACCOUNT = "123456789012"


@pytest.fixture(scope="module", autouse=True)
def aws(shared_home):
    return cloud.start()


@pytest.fixture(autouse=True)
def session(aws):
    boto3.DEFAULT_SESSION = None


@pytest.fixture(scope="module")
def s3(aws):
    return boto3.client("s3")


@pytest.fixture(scope="module")
def cp(aws):
    return boto3.client("codepipeline")


def make_role(name, service, actions="*", **more):
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole"}
    trust["Principal"] = {"Service": f"{service}.amazonaws.com"}
    iam = boto3.client("iam")
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    allow(name, actions)
    return arn


def allow(role, actions):
    may = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [may]})
    iam = boto3.client("iam")
    iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=document)


@pytest.fixture(scope="module")
def role(aws):
    return make_role("pipeline", "codepipeline", ["s3:*", "sns:*", "cloudformation:*", "lambda:*"])


def bucket(s3):
    name = f"b-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    enabled = {"Status": "Enabled"}
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=enabled)
    return name


@pytest.fixture(scope="module")
def store(s3):
    return bucket(s3)


def zipped(**files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        for name, text in files.items():
            made.writestr(name.replace("__", "."), text)
    return packed.getvalue()


@pytest.fixture
def source(s3):
    """A bucket with a source in it."""
    name = bucket(s3)
    s3.put_object(Bucket=name, Key="site.zip", Body=zipped(index__html="one"))
    return name


def action(category, provider, name="", order=1, owner="AWS", **more):
    kind = {"category": category, "owner": owner, "provider": provider, "version": "1"}
    inputs, outputs = ([{"name": n} for n in more.pop(k, ())] for k in ("inputs", "outputs"))
    found = {"name": name or provider, "actionTypeId": kind, "runOrder": order}
    found |= {n: more.pop(n) for n in ("namespace", "roleArn") if n in more}
    return found | {"inputArtifacts": inputs, "outputArtifacts": outputs, "configuration": more}


def take(source, **more):
    settings = {"S3Bucket": source, "S3ObjectKey": "site.zip", "PollForSourceChanges": "false"}
    return action("Source", "S3", "Take", outputs=["Site"], **settings | more)


def approve(name="Ask", **more):
    return action("Approval", "Manual", name, **more)


def put(target, name="Put", **more):
    settings = {"BucketName": target, "Extract": "true", "inputs": ["Site"]}
    return action("Deploy", "S3", name, **settings | more)


class Made:
    """A pipeline, as somebody looks at it who waits."""

    def __init__(self, cp, role, store, *stages, **more):
        self.cp, self.name = cp, f"p-{uuid.uuid4().hex[:10]}"
        names = ("Source", "Middle", "End", "After")
        stages = [{"name": n, "actions": a} for n, a in zip(names, stages, strict=False)]
        place = {"type": "S3", "location": store}
        self.facts = {"name": self.name, "roleArn": role, "artifactStore": place, "stages": stages}
        cp.create_pipeline(pipeline=self.facts | more)
        self.first = self.executions()[-1]["pipelineExecutionId"]

    def executions(self):
        return self.cp.list_pipeline_executions(pipelineName=self.name)["pipelineExecutionSummaries"]

    def start(self, **more):
        return self.cp.start_pipeline_execution(name=self.name, **more)["pipelineExecutionId"]

    def execution(self, one):
        given = {"pipelineName": self.name, "pipelineExecutionId": one}
        return self.cp.get_pipeline_execution(**given)["pipelineExecution"]

    def ends(self, one=None):
        """Wait for an execution and return its status."""
        find = lambda: self.execution(one or self.first)["status"]  # noqa: E731
        return until(lambda: (s := find()) not in ("InProgress", "Stopping") and s)

    def stage(self, name):
        found = self.cp.get_pipeline_state(name=self.name)["stageStates"]
        return {one["stageName"]: one for one in found}[name]

    def state(self, stage, name):
        """The latest execution of an action."""
        actions = {one["actionName"]: one for one in self.stage(stage)["actionStates"]}
        return actions[name].get("latestExecution", {})

    def actions(self, one=None):
        """What the actions of an execution did, by their names; the newest of each."""
        chosen = {"filter": {"pipelineExecutionId": one}} if one else {}
        found = self.cp.list_action_executions(pipelineName=self.name, **chosen)
        return {a["actionName"]: a for a in reversed(found["actionExecutionDetails"])}

    def error(self, name, one=None):
        assert self.ends(one) == "Failed"
        return self.actions(one)[name]["output"]["executionResult"]["errorDetails"]

    def answer(self, stage="Middle", name="Ask", status="Approved", summary="fine"):
        token = until(lambda: self.state(stage, name).get("token"))
        where = {"pipelineName": self.name, "stageName": stage, "actionName": name}
        self.cp.put_approval_result(**where, result={"status": status, "summary": summary}, token=token)
        return where | {"token": token}


@pytest.fixture
def pipeline(cp, role, store, s3):
    """A function that makes pipelines, which are deleted afterwards."""
    made = []

    def make(*stages, **more):
        made.append(Made(cp, more.pop("role", role), store, *stages, **more))
        return made[-1]

    yield make
    for one in made:
        cp.delete_pipeline(name=one.name)


def refused(code, call, **arguments):
    """Check that a call is refused with a code, and return the message."""
    with pytest.raises(ClientError) as problem:
        call(**arguments)
    assert problem.value.response["Error"]["Code"] == code, problem.value
    return problem.value.response["Error"]["Message"]


def read(s3, bucket, key="index.html"):
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()


# --- From source to deployment


def test_a_source_is_approved_and_deployed(pipeline, source, s3):
    target = bucket(s3)
    made = pipeline([take(source, namespace="Src")], [approve()], [put(target)])
    assert until(lambda: made.state("Middle", "Ask").get("token"))
    assert made.stage("Source")["latestExecution"]["status"] == "Succeeded"
    assert made.stage("Middle")["latestExecution"]["status"] == "InProgress"
    assert "latestExecution" not in made.stage("End")
    assert s3.list_objects_v2(Bucket=target)["KeyCount"] == 0
    where = made.answer()
    assert made.ends() == "Succeeded"
    assert read(s3, target) == "one"
    asked = made.state("Middle", "Ask")
    assert (asked["status"], asked["summary"]) == ("Succeeded", "fine")
    assert asked["lastUpdatedBy"].endswith(":root") and "token" not in asked
    again = {**where, "result": {"status": "Approved", "summary": ""}}
    refused("ApprovalAlreadyCompletedException", made.cp.put_approval_result, **again)
    again["token"] = str(uuid.uuid4())
    refused("InvalidApprovalTokenException", made.cp.put_approval_result, **again)
    done = made.actions()
    version = s3.head_object(Bucket=source, Key="site.zip")["VersionId"]
    taken = done["Take"]["output"]
    assert taken["outputVariables"]["VersionId"] == version
    assert taken["executionResult"]["externalExecutionId"] == version
    place = taken["outputArtifacts"][0]["s3location"]
    assert place == done["Put"]["input"]["inputArtifacts"][0]["s3location"]
    assert place["key"].startswith(f"{made.name}/Site/") and place["key"].endswith(".zip")
    (one,) = made.executions()
    assert one["trigger"]["triggerType"] == "CreatePipeline"
    assert one["sourceRevisions"][0]["revisionId"] == version
