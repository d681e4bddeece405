"""CodePipeline on the local cloud: pipelines that run, and what starts them."""

import contextlib
import io
import json
import os
import platform
import signal
import struct
import subprocess
import uuid
import zipfile

import boto3
import psutil
import pytest
from asking import refused
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from waiting import received, until

from helpers import cloud, containers, ledger, machine
from helpers.cloud import local
from helpers.cloud.codebuild import image as build_image
from helpers.cloud.codepipeline import variables
from helpers.cluster.api import Api

ACCOUNT = "123456789012"


@pytest.fixture(scope="module", autouse=True)
def aws(shared_home):
    if machine.docker_engine().works:
        build_image.archive()  # takes as long as it takes, once
    return cloud.start()


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
            entry = zipfile.ZipInfo(name.replace("__", "."))
            entry.external_attr = 0o755 << 16
            made.writestr(entry, text)
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
        return self.cp.list_pipeline_executions(pipelineName=self.name)[
            "pipelineExecutionSummaries"
        ]

    def start(self, **more):
        return self.cp.start_pipeline_execution(name=self.name, **more)["pipelineExecutionId"]

    def execution(self, one):
        given = {"pipelineName": self.name, "pipelineExecutionId": one}
        return self.cp.get_pipeline_execution(**given)["pipelineExecution"]

    def ends(self, one=None):
        """Wait for an execution and return its status."""
        find = lambda: self.execution(one or self.first)["status"]  # noqa: E731
        return until(lambda: (s := find()) not in ("InProgress", "Stopping") and s)

    def errors(self, one=None):
        """Why the actions of an execution failed, by their names."""
        results = {n: a["output"]["executionResult"] for n, a in self.actions(one).items()}
        return {n: r["errorDetails"] for n, r in results.items() if "errorDetails" in r}

    def succeeds(self, one=None):
        """Wait until an execution has succeeded."""
        assert self.ends(one) == "Succeeded", f"{self.errors(one)}"

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
        """Wait until an execution has failed at an action, and return why."""
        assert self.ends(one) == "Failed"
        errors = self.errors(one)
        assert list(errors) == [name], f"{errors}"
        return errors[name]

    def answer(self, stage="Middle", name="Ask", status="Approved", summary="fine"):
        token = until(lambda: self.state(stage, name).get("token"))
        where = {"pipelineName": self.name, "stageName": stage, "actionName": name}
        self.cp.put_approval_result(
            **where, result={"status": status, "summary": summary}, token=token
        )
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
    made.succeeds()
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


def test_somebody_watches_a_pipeline(pipeline, source, s3):
    asks, target = [approve()], bucket(s3)
    made = pipeline([take(source)], asks, [put(target)], [approve("Last")])
    stage = {"pipelineName": made.name, "stageName": "End", "transitionType": "Inbound"}
    made.cp.disable_stage_transition(**stage, reason="freeze")
    assert list(cloud.watch(made.name)["status"]) == ["Succeeded", "InProgress"]
    made.answer(summary="go on")
    seen = cloud.watch(made.name)
    assert list(seen["status"]) == ["Succeeded", "Succeeded"]
    assert seen.loc[("Middle", "Ask"), "said"] == "go on"
    made.cp.enable_stage_transition(**stage)
    version = s3.head_object(Bucket=source, Key="site.zip")["VersionId"]
    assert len(cloud.watch(made.name, version)) == 4
    made.answer("After", "Last", status="Rejected", summary="no")
    seen = cloud.watch(made.name)
    assert list(seen["status"]) == ["Succeeded"] * 3 + ["Failed"]
    assert seen.loc[("After", "Last"), "said"].endswith(": no")
    with pytest.raises(TimeoutError, match="not there"):
        cloud.watch(made.name, "no such version", 0)


def test_actions_of_the_same_order_run_at_once_and_the_next_after_them(pipeline, source, s3):
    target = bucket(s3)
    asks = [approve("A", order=1), approve("B", order=1), approve("C", order=2)]
    made = pipeline([take(source)], asks, [put(target)])
    until(lambda: all(made.state("Middle", name).get("token") for name in "AB"))
    made.answer(name="A")
    until(lambda: made.state("Middle", "A")["status"] == "Succeeded")
    assert made.state("Middle", "C") == {}
    made.answer(name="B")
    made.answer(name="C")
    made.succeeds()


def test_variables_reach_later_actions(pipeline, source, s3):
    target = bucket(s3)
    key = "#{variables.Stage}/#{Src.VersionId}/#{codepipeline.PipelineExecutionId}"
    declared = [{"name": "Stage", "defaultValue": "test"}]
    ask = approve(CustomData="version #{Src.VersionId}")
    made = pipeline(
        [take(source, namespace="Src")],
        [put(target, ObjectKey=key)],
        [ask],
        pipelineType="V2",
        variables=declared,
    )
    until(lambda: made.state("End", "Ask").get("token"))
    version = s3.head_object(Bucket=source, Key="site.zip")["VersionId"]
    assert read(s3, target, f"test/{version}/{made.first}/index.html") == "one"
    asked = made.actions()["Ask"]["input"]
    assert asked["configuration"]["CustomData"] == "version #{Src.VersionId}"
    assert asked["resolvedConfiguration"]["CustomData"] == f"version {version}"
    made.answer("End")
    second = made.start(variables=[{"name": "Stage", "value": "live"}])
    made.answer("End")
    made.succeeds(second)
    assert read(s3, target, f"live/{version}/{second}/index.html") == "one"
    assert made.execution(second)["variables"] == [{"name": "Stage", "resolvedValue": "live"}]
    wrong = [{"name": "Nothing", "value": "x"}]
    refused("ValidationException", made.start, variables=wrong)


NAMES = st.text(st.characters(codec="ascii", exclude_characters="#{}."), min_size=1)
KNOWN = st.dictionaries(NAMES, st.dictionaries(NAMES, st.text()))


@given(KNOWN, st.text(st.characters(exclude_characters="#")))
def test_every_variable_is_replaced_by_its_value_and_nothing_else_changes(known, between):
    pairs = [(space, name) for space in known for name in known[space]]
    text = between.join(["", *(f"#{{{space}.{name}}}" for space, name in pairs), ""])
    wanted = between.join(["", *(known[space][name] for space, name in pairs), ""])
    assert variables.resolve({"key": text}, known) == {"key": wanted}


@given(KNOWN, NAMES, NAMES)
def test_a_variable_that_is_not_there_is_named(known, space, name):
    text = f"a #{{{space}.{name}}} b"
    if name in known.get(space, {}):
        known[space].pop(name)
    with pytest.raises(variables.Unresolved) as problem:
        variables.resolve({"key": text}, known)
    assert str(problem.value) == f"#{{{space}.{name}}}"


def test_sources_may_be_of_another_version(pipeline, source, s3):
    target = bucket(s3)
    old = s3.head_object(Bucket=source, Key="site.zip")["VersionId"]
    s3.put_object(Bucket=source, Key="site.zip", Body=zipped(index__html="two"))
    made = pipeline([take(source)], [put(target)])
    made.succeeds()
    assert read(s3, target) == "two"
    revision = {"actionName": "Take", "revisionType": "S3_OBJECT_VERSION_ID", "revisionValue": old}
    made.succeeds(made.start(sourceRevisions=[revision]))
    assert read(s3, target) == "one"


def test_a_token_starts_one_execution_only(pipeline, source, s3):
    made = pipeline([take(source)], [approve()])
    first = made.start(clientRequestToken="t1")
    assert made.start(clientRequestToken="t1") == first
    assert made.start(clientRequestToken="t2") != first


# --- What goes wrong


def test_an_object_that_is_not_there(pipeline, source, s3):
    made = pipeline([take(source, S3ObjectKey="none.zip")], [approve()])
    error = made.error("Take")
    assert f"S3 object none.zip in the bucket {source} does not exist" in error["message"]
    assert made.stage("Source")["latestExecution"]["status"] == "Failed"
    assert "latestExecution" not in made.stage("Middle")


def test_artifacts_are_encrypted_as_policies_of_buckets_ask(pipeline, source, s3, store):
    deny = {"Effect": "Deny", "Principal": "*", "Resource": f"arn:aws:s3:::{store}/*"}
    plain = {"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}}
    open_ = {"Bool": {"aws:SecureTransport": False}}
    denied = [deny | {"Action": "s3:PutObject", "Condition": plain}]
    denied.append(deny | {"Action": "s3:*", "Condition": open_})
    policy = json.dumps({"Version": "2012-10-17", "Statement": denied})
    s3.put_bucket_policy(Bucket=store, Policy=policy)
    target = bucket(s3)
    made = pipeline([take(source)], [put(target)])
    made.succeeds(made.first)
    s3.delete_bucket_policy(Bucket=store)


def test_a_bucket_without_versions_is_no_source(pipeline, s3):
    name = f"b-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="site.zip", Body=zipped(index__html="one"))
    assert "versioning" in pipeline([take(name)], [approve()]).error("Take")["message"]


def test_a_variable_that_does_not_exist_fails_its_action(pipeline, source, s3):
    ask = approve(CustomData="#{Src.VersionId} #{Src.Nothing}")
    made = pipeline([take(source, namespace="Src")], [ask])
    message = made.error("Ask")["message"]
    assert "variables could not be resolved: Action name=Ask" in message
    assert message.endswith("Not found: #{Src.Nothing}")


def test_a_rejected_approval_ends_the_execution(pipeline, source):
    made = pipeline([take(source)], [approve()], [approve("Later")])
    made.answer(status="Rejected", summary="too slow")
    assert made.error("Ask")["message"].endswith(":root: too slow")
    assert made.stage("Middle")["latestExecution"]["status"] == "Failed"
    assert "latestExecution" not in made.stage("End")


def test_a_failed_stage_runs_again_from_its_failed_actions(pipeline, source, s3):
    good, missing = bucket(s3), f"b-{uuid.uuid4().hex[:12]}"
    middle = [approve(), put(good, "Good", order=2), put(missing, "Bad", order=2)]
    made = pipeline([take(source)], middle, [approve("Last")])
    made.answer()
    assert "NoSuchBucket" in made.error("Bad")["message"]
    assert made.state("Middle", "Good")["status"] == "Succeeded"
    retry = {"pipelineName": made.name, "stageName": "Middle", "pipelineExecutionId": made.first}
    s3.create_bucket(Bucket=missing)
    made.cp.retry_stage_execution(**retry, retryMode="FAILED_ACTIONS")
    made.answer("End", "Last")
    made.succeeds()
    assert read(s3, missing) == "one"
    runs = made.cp.list_action_executions(pipelineName=made.name)["actionExecutionDetails"]
    names = [one["actionName"] for one in runs if one["stageName"] == "Middle"]
    assert sorted(names) == ["Ask", "Bad", "Bad", "Good"]
    call = made.cp.retry_stage_execution
    refused("StageNotRetryableException", call, **retry, retryMode="ALL_ACTIONS")
    second = made.start()
    made.answer(status="Rejected")
    assert made.ends(second) == "Failed"
    refused("NotLatestPipelineExecutionException", call, **retry, retryMode="ALL_ACTIONS")
    call(**retry | {"pipelineExecutionId": second}, retryMode="ALL_ACTIONS")
    until(lambda: made.stage("Middle")["latestExecution"]["status"] == "InProgress")
    made.answer()
    made.answer("End", "Last")
    made.succeeds(second)


def test_a_role_without_a_permission_fails_the_action_in_awss_words(pipeline, source, s3, cp):
    name = f"r{uuid.uuid4().hex[:8]}"
    weak = make_role(name, "codepipeline", "s3:List*")
    target = bucket(s3)
    made = pipeline([take(source)], [put(target)], role=weak)
    error = made.error("Take")
    assert error["code"] == "PermissionError"
    assert "doesn't have the permissions required to access the" in error["message"]
    allow(name, ["s3:List*", "s3:GetBucketVersioning", "s3:GetObject", "s3:GetObjectVersion"])
    error = made.error("Take", made.start())  # the artifact cannot be written
    assert "Amazon S3:AccessDenied:" in error["message"] and "s3:PutObject" in error["message"]
    allow(name, "s3:*")
    made.succeeds(made.start())


def test_templates_are_files_of_artifacts(pipeline, s3, source):
    template = {
        "Parameters": {"Text": {"Type": "String"}},
        "Resources": {
            "T": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": {"Ref": "Text"}}}
        },
        "Outputs": {"Topic": {"Value": {"Ref": "T"}}},
    }
    s3.put_object(Bucket=source, Key="site.zip", Body=zipped(t__json=json.dumps(template)))
    name = f"s{uuid.uuid4().hex[:8]}"
    common = {"StackName": name, "inputs": ["Site"], "TemplatePath": "Site::t.json"}
    common["ParameterOverrides"] = '{"Text": "#{Src.BucketName}"}'
    deploy = action(
        "Deploy", "CloudFormation", "Up", namespace="Up", ActionMode="CREATE_UPDATE", **common
    )
    ask = approve(order=2, CustomData="#{Up.Topic}")
    down = action("Deploy", "CloudFormation", "Down", ActionMode="DELETE_ONLY", StackName=name)
    made = pipeline([take(source, namespace="Src")], [deploy, ask], [down])
    until(lambda: made.state("Middle", "Ask").get("token"))
    (stack,) = boto3.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    asked = made.actions()["Ask"]["input"]["resolvedConfiguration"]["CustomData"]
    assert asked == stack["Outputs"][0]["OutputValue"]
    made.answer()
    made.succeeds()
    refused("ValidationError", boto3.client("cloudformation").describe_stacks, StackName=name)
    change = {"ActionMode": "CHANGE_SET_REPLACE", "ChangeSetName": "c", **common}
    go = {"ActionMode": "CHANGE_SET_EXECUTE", "ChangeSetName": "c", "StackName": name}
    both = [action("Deploy", "CloudFormation", "Plan", **change)]
    both.append(action("Deploy", "CloudFormation", "Do", order=2, **go))
    missing = action(
        "Deploy",
        "CloudFormation",
        "None",
        ActionMode="CREATE_UPDATE",
        **common | {"TemplatePath": "Site::n.json"},
    )
    missing["inputArtifacts"] = [{"name": "Site"}]
    both[0]["inputArtifacts"] = [{"name": "Site"}]
    again = pipeline([take(source, namespace="Src")], both, [missing])
    error = again.error("None")
    assert error["message"] == "File [n.json] does not exist in artifact [Site]"
    assert again.state("Middle", "Do")["status"] == "Succeeded"
    (stack,) = boto3.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"


FUNCTION = """
import boto3
def handler(event, context):
    job = event["CodePipeline.job"]
    given = job["data"]["actionConfiguration"]["configuration"]["UserParameters"]
    pipeline = boto3.client("codepipeline")
    if given == "fail":
        details = {"type": "JobFailed", "message": "no"}
        pipeline.put_job_failure_result(jobId=job["id"], failureDetails=details)
    else:
        pipeline.put_job_success_result(jobId=job["id"], outputVariables={"Said": given})
"""


def test_a_function_says_itself_whether_it_has_succeeded(pipeline, source):
    arn = make_role(f"r{uuid.uuid4().hex[:8]}", "lambda", ["codepipeline:*", "logs:*"])
    code = {"ZipFile": zipped(index__py=FUNCTION)}
    facts = {"Runtime": "python3.12", "Handler": "index.handler", "Role": arn, "Timeout": 60}
    boto3.client("lambda").create_function(FunctionName="judge", Code=code, **facts)
    call = lambda text, **more: action(  # noqa: E731
        "Invoke", "Lambda", f"Call-{text}", FunctionName="judge", UserParameters=text, **more
    )
    made = pipeline([take(source)], [call("yes", namespace="F")], [call("fail")])
    assert made.error("Call-fail") == {"code": "JobFailed", "message": "no"}
    done = made.actions()["Call-yes"]
    assert done["output"]["outputVariables"] == {"Said": "yes"}
    again = {"jobId": done["actionExecutionId"]}
    refused("InvalidJobStateException", made.cp.put_job_success_result, **again)


# --- Stopping, waiting, overtaking


def test_an_execution_stops_after_what_runs_or_at_once(pipeline, source):
    made = pipeline([take(source)], [approve()], [approve("Later")])
    until(lambda: made.state("Middle", "Ask").get("token"))
    one = {"pipelineName": made.name, "pipelineExecutionId": made.first}
    made.cp.stop_pipeline_execution(**one, reason="lunch")
    assert made.execution(made.first)["status"] == "Stopping"
    assert made.stage("Middle")["latestExecution"]["status"] == "Stopping"
    refused("DuplicatedStopRequestException", made.cp.stop_pipeline_execution, **one)
    made.answer()
    assert made.ends() == "Stopped"
    assert "latestExecution" not in made.stage("End")
    assert made.executions()[0]["stopTrigger"] == {"reason": "lunch"}
    second = made.start()
    until(lambda: made.state("Middle", "Ask").get("token"))
    one["pipelineExecutionId"] = second
    made.cp.stop_pipeline_execution(**one, abandon=True)
    assert made.ends(second) == "Stopped"
    assert made.state("Middle", "Ask")["status"] == "Abandoned"
    code = "PipelineExecutionNotStoppableException"
    refused(code, made.cp.stop_pipeline_execution, **one)


def test_a_newer_execution_overtakes_one_that_waits(pipeline, source):
    made = pipeline([take(source)], [approve()])
    until(lambda: made.state("Middle", "Ask").get("token"))
    waits = lambda one: (  # noqa: E731
        made.stage("Middle").get("inboundExecution", {}).get("pipelineExecutionId") == one
    )
    second = made.start()
    until(lambda: waits(second))
    third = made.start()
    assert made.ends(second) == "Superseded"
    assert until(lambda: waits(third))
    assert made.stage("Middle")["latestExecution"]["pipelineExecutionId"] == made.first
    made.answer()
    made.succeeds()
    until(lambda: made.stage("Middle")["latestExecution"]["pipelineExecutionId"] == third)
    made.answer()
    made.succeeds(third)
    statuses = [one["status"] for one in made.executions()]
    assert statuses == ["Succeeded", "Superseded", "Succeeded"]


def test_queued_executions_wait_and_parallel_ones_do_not(pipeline, source):
    more = {"pipelineType": "V2", "executionMode": "QUEUED"}
    made = pipeline([take(source)], [approve()], **more)
    until(lambda: made.state("Middle", "Ask").get("token"))
    others = [made.start(), made.start()]
    until(lambda: len(made.stage("Middle").get("inboundExecutions", [])) == 2)
    for one in (made.first, *others):
        until(lambda one=one: made.stage("Middle")["latestExecution"]["pipelineExecutionId"] == one)
        made.answer()
        made.succeeds(one)
    made = pipeline([take(source)], [approve()], **more | {"executionMode": "PARALLEL"})
    made.start()
    running = lambda: [  # noqa: E731
        one
        for one in made.cp.list_action_executions(pipelineName=made.name)["actionExecutionDetails"]
        if one["actionName"] == "Ask" and one["status"] == "InProgress"
    ]
    until(lambda: len(running()) == 2)


def test_nobody_enters_a_stage_that_is_closed(pipeline, source):
    made = pipeline([take(source)], [approve()], [approve("Last")])
    stage = {"pipelineName": made.name, "stageName": "End", "transitionType": "Inbound"}
    made.cp.disable_stage_transition(**stage, reason="freeze")
    closed = made.stage("End")["inboundTransitionState"]
    assert (closed["enabled"], closed["disabledReason"]) == (False, "freeze")
    made.answer()
    until(lambda: "inboundExecution" in made.stage("End"))
    assert made.execution(made.first)["status"] == "InProgress"
    made.cp.enable_stage_transition(**stage)
    made.answer("End", "Last")
    made.succeeds()


def test_a_stage_goes_back_to_what_an_earlier_execution_had(pipeline, source, s3):
    target = bucket(s3)
    made = pipeline([take(source)], [put(target)], pipelineType="V2")
    made.succeeds()
    s3.put_object(Bucket=source, Key="site.zip", Body=zipped(index__html="two"))
    made.succeeds(made.start())
    assert read(s3, target) == "two"
    back = {"pipelineName": made.name, "stageName": "Middle"}
    one = made.cp.rollback_stage(**back, targetPipelineExecutionId=made.first)
    made.succeeds(one["pipelineExecutionId"])
    assert read(s3, target) == "one"
    found = made.executions()[0]
    assert (found["executionType"], found["trigger"]["triggerType"]) == (
        "ROLLBACK",
        "ManualRollback",
    )


def test_versions_and_deletion(pipeline, source, cp):
    made = pipeline([take(source)], [approve()])
    facts = cp.get_pipeline(name=made.name)["pipeline"]
    facts["stages"][1]["name"] = "Gate"
    assert cp.update_pipeline(pipeline=facts)["pipeline"]["version"] == 2
    assert cp.get_pipeline(name=made.name, version=1)["pipeline"]["stages"][1]["name"] == "Middle"
    assert cp.get_pipeline(name=made.name)["pipeline"]["stages"][1]["name"] == "Gate"
    refused("PipelineVersionNotFoundException", cp.get_pipeline, name=made.name, version=3)
    (listed,) = [one for one in cp.list_pipelines()["pipelines"] if one["name"] == made.name]
    assert (listed["version"], listed["pipelineType"]) == (2, "V1")
    cp.delete_pipeline(name=made.name)
    refused("PipelineNotFoundException", cp.get_pipeline_state, name=made.name)


# --- Structure


NOBODY = f"arn:aws:iam::{ACCOUNT}:role/none"
TAKE, ASK = [take("b")], [approve()]
BAD = {  # the code without its end, what the message says: stages, other facts
    "Structure, only 1 stage(s)": ([TAKE], {}),
    "Structure, only contains source": ([ASK, ASK], {}),
    "Structure, AssumeRole": ([TAKE, ASK], {"roleArn": NOBODY}),
    "Structure, QUEUED or PARALLEL mode can only": ([TAKE, ASK], {"executionMode": "QUEUED"}),
    "Structure, Pipeline variable can only": ([TAKE, ASK], {"variables": [{"name": "a"}]}),
    "Structure, already in use: a": (
        [TAKE, ASK],
        {"variables": [{"name": "a"}] * 2, "pipelineType": "V2"},
    ),
    "Structure, category is not Source": ([TAKE, TAKE], {}),
    "Structure, in the first stage": ([TAKE, [*TAKE, *ASK]], {}),
    "Structure, unique within": ([[*TAKE, take("b") | {"name": "T"}], ASK], {}),
    "StageDeclaration, 'Ask' is used more": ([TAKE, ASK + ASK], {}),
    "ActionDeclaration, not declared as Output": ([TAKE, [put("b", inputs=["X"])]], {}),
    "ActionDeclaration, configuration 'ProjectName'": (
        [TAKE, [action("Build", "CodeBuild", inputs=["Site"])]],
        {},
    ),
    "ActionDeclaration, unknown configuration 'Bucket'": ([TAKE, [put("b", Bucket="b")]], {}),
    "ActionDeclaration, Put declares 0 input artifacts which is less than the minimum count (1)": (
        [TAKE, [put("b", inputs=[])]],
        {},
    ),
    "ActionDeclaration, declares 1 input artifacts which is more": (
        [TAKE, [approve(inputs=["Site"])]],
        {},
    ),
    "ActionDeclaration, 'CodeDeploy'": ([TAKE, [action("Deploy", "CodeDeploy")]], {}),
    "ActionDeclaration, 'GitHub'": ([[action("Source", "GitHub", owner="ThirdParty")], ASK], {}),
    "ActionDeclaration, EKS Action can only be used with V2": (
        [TAKE, [action("Deploy", "EKS", ClusterName="c", inputs=["Site"])]],
        {},
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_structure_that_aws_refuses(cp, role, store, what):
    (code, text), (stages, more) = what.split(", ", 1), BAD[what]
    named = [{"name": f"S{n}", "actions": actions} for n, actions in enumerate(stages)]
    facts = {"name": "wrong", "roleArn": role, "artifactStore": {"type": "S3", "location": store}}
    asked = facts | {"stages": named} | more
    assert text in refused(f"Invalid{code}Exception", cp.create_pipeline, pipeline=asked)
    assert "wrong" not in [one["name"] for one in cp.list_pipelines()["pipelines"]]


def test_stages_have_different_names(cp, role, store):
    stages = [{"name": "S", "actions": actions} for actions in (TAKE, ASK)]
    place = {"type": "S3", "location": store}
    facts = {"name": "wrong", "roleArn": role, "artifactStore": place, "stages": stages}
    text = refused("InvalidStageDeclarationException", cp.create_pipeline, pipeline=facts)
    assert text == "Stage name 'S' is used more than once"


def test_words_that_are_none_of_the_apis_are_refused(pipeline, source, cp):
    made = pipeline([take(source)], [approve()])
    facts = cp.get_pipeline(name=made.name)["pipeline"]
    facts["stages"][0]["actions"][0]["actionTypeId"]["category"] = "Sauce"
    text = refused("ValidationException", cp.update_pipeline, pipeline=facts)
    assert "'pipeline.stages.1.member.actions.1.member.actionTypeId.category'" in text
    token = until(lambda: made.state("Middle", "Ask").get("token"))
    where = {"pipelineName": made.name, "stageName": "Middle", "actionName": "Ask", "token": token}
    result = {"status": "Perhaps", "summary": ""}
    text = refused("ValidationException", cp.put_approval_result, **where, result=result)
    assert text.startswith("1 validation error detected: Value 'Perhaps' at 'result.status' failed")
    assert made.stage("Middle")["latestExecution"]["status"] == "InProgress"
    refused("InvalidNextTokenException", cp.list_pipelines, nextToken="x")
    nobody = arn(made) + "x"
    text = refused("ResourceNotFoundException", cp.list_tags_for_resource, resourceArn=nobody)
    assert text.endswith(f"does not include a pipeline with the name '{made.name}x'")
    call = {"pipelineName": made.name, "stageName": "Middle", "retryMode": "ALL_ACTIONS"}
    call["pipelineExecutionId"] = str(uuid.uuid4())
    refused("NotLatestPipelineExecutionException", cp.retry_stage_execution, **call)


# --- What starts a pipeline


@pytest.fixture(scope="module")
def events(aws):
    return boto3.client("events")


@pytest.fixture
def rule(events):
    """A function that makes rules, which are deleted afterwards."""
    made = []

    def make(pattern, *targets):
        name = f"r-{uuid.uuid4().hex[:8]}"
        made.append(name)
        arn = events.put_rule(Name=name, EventPattern=json.dumps(pattern))["RuleArn"]
        for n, target in enumerate(targets):
            events.put_targets(Rule=name, Targets=[{"Id": str(n), **target}])
        return arn

    yield make
    for name in made:
        for one in events.list_targets_by_rule(Rule=name)["Targets"]:
            events.remove_targets(Rule=name, Ids=[one["Id"]])
        events.delete_rule(Name=name)


@pytest.fixture(scope="module")
def starter(aws):
    return make_role("starter", "events", "codepipeline:StartPipelineExecution")


def arn(made):
    return f"arn:aws:codepipeline:us-east-1:{ACCOUNT}:{made.name}"


def queue(rule_pattern, rule):
    """A queue that hears what a rule hears; a function that returns the events in it."""
    name = f"q-{uuid.uuid4().hex[:8]}"
    url = boto3.client("sqs").create_queue(QueueName=name)["QueueUrl"]
    rule(rule_pattern, {"Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"})
    heard = []

    def listen():
        heard.extend(received(url))
        return heard

    return listen


OBJECT = {"source": ["aws.s3"], "detail-type": ["Object Created"]}
CALL = {"source": ["aws.s3"], "detail-type": ["AWS API Call via CloudTrail"]}


@pytest.mark.parametrize("way", ["notification", "trail"])
def test_an_upload_starts_the_pipeline_of_a_rule(pipeline, source, s3, rule, starter, way):
    target = bucket(s3)
    made = pipeline([take(source)], [put(target)])
    made.succeeds()
    if way == "notification":
        config = {"NotificationConfiguration": {"EventBridgeConfiguration": {}}}
        s3.put_bucket_notification_configuration(Bucket=source, **config)
        detail = {"bucket": {"name": [source]}, "object": {"key": ["site.zip"]}}
        pattern = OBJECT | {"detail": detail}
    else:
        asked = {"bucketName": [source], "key": ["site.zip"]}
        detail = {"eventSource": ["s3.amazonaws.com"], "requestParameters": asked}
        detail["eventName"] = ["PutObject", "CopyObject", "CompleteMultipartUpload"]
        pattern = CALL | {"detail": detail}
    by = rule(pattern, {"Arn": arn(made), "RoleArn": starter})
    s3.put_object(Bucket=source, Key="other.zip", Body=b"")
    s3.put_object(Bucket=source, Key="site.zip", Body=zipped(index__html="two"))
    until(lambda: len(made.executions()) == 2)
    newest = made.executions()[0]
    assert newest["trigger"] == {"triggerType": "CloudWatchEvent", "triggerDetail": by}
    made.succeeds(newest["pipelineExecutionId"])
    assert read(s3, target) == "two"
    assert len(made.executions()) == 2


def test_a_source_that_is_polled_starts_its_pipeline(pipeline, source, s3):
    made = pipeline([take(source, PollForSourceChanges="true")], [approve()])
    until(lambda: made.state("Middle", "Ask").get("token"))
    s3.put_object(Bucket=source, Key="site.zip", Body=zipped(index__html="two"))
    until(lambda: len(made.executions()) == 2)
    assert made.executions()[0]["trigger"]["triggerType"] == "PollForSourceChanges"


def test_a_rule_needs_a_role_that_may_start_the_pipeline(pipeline, source, rule, role, shared_home):
    made = pipeline([take(source)], [approve()])
    weak = make_role(f"r{uuid.uuid4().hex[:8]}", "events", "codepipeline:Get*")
    log = shared_home / "cloud/server.log"
    for who, why in (
        (role, "not authorized to perform: sts:AssumeRole"),
        (weak, "StartPipelineEx"),
    ):
        kind = uuid.uuid4().hex
        rule({"detail-type": [kind]}, {"Arn": arn(made), "RoleArn": who})
        event = {"Source": "me", "DetailType": kind, "Detail": "{}"}
        answer = boto3.client("events").put_events(Entries=[event])
        assert answer["FailedEntryCount"] == 0
        until(lambda why=why: why in log.read_text())
    assert len(made.executions()) == 1


def test_targets_that_are_not_here_are_refused_by_name(events, rule, pipeline, source):
    kind = uuid.uuid4().hex
    by = rule({"detail-type": [kind]}).rsplit("/", 1)[1]
    other = {"Id": "1", "Arn": f"arn:aws:states:us-east-1:{ACCOUNT}:stateMachine:m"}
    text = refused("NotImplemented", events.put_targets, Rule=by, Targets=[other])
    assert "targets of states" in text
    made = {"Id": "1", "Arn": f"arn:aws:codepipeline:us-east-1:{ACCOUNT}:p"}
    text = refused("ValidationException", events.put_targets, Rule=by, Targets=[made])
    assert text.startswith("RoleArn is required")
    refused("NotImplemented", events.put_rule, Name="x", ScheduleExpression="rate(1 minute)")


def test_pipelines_tell_what_happens_to_them(pipeline, source, rule):
    heard = queue({"source": ["aws.codepipeline"]}, rule)
    made = pipeline([take(source)], [approve()])
    made.answer(status="Rejected")
    assert made.ends() == "Failed"
    mine = lambda: [one for one in heard() if one["resources"] == [arn(made)]]  # noqa: E731
    until(lambda: len(mine()) == 10)
    kinds = {(one["detail-type"].split()[1], one["detail"]["state"]) for one in mine()}
    states = {"STARTED", "SUCCEEDED", "FAILED"}
    assert kinds == {("Pipeline", "STARTED"), ("Pipeline", "FAILED")} | {
        (kind, state) for kind in ("Stage", "Action") for state in states
    }
    assert {one["detail"]["execution-id"] for one in mine()} == {made.first}


def test_functions_and_topics_are_targets_if_their_policies_say_so(events, rule, s3):
    name, kind = bucket(s3), uuid.uuid4().hex
    own = make_role(f"r{uuid.uuid4().hex[:8]}", "lambda", ["s3:*", "logs:*"])
    body = f"""
import boto3, json
def handler(event, context):
    boto3.client("s3").put_object(Bucket="{name}", Key="heard", Body=json.dumps(event))
"""
    facts = {"Runtime": "python3.12", "Handler": "index.handler", "Role": own, "Timeout": 60}
    client, code = boto3.client("lambda"), {"ZipFile": zipped(index__py=body)}
    function = client.create_function(FunctionName="hear", Code=code, **facts)["FunctionArn"]
    topic = boto3.client("sns").create_topic(Name="hear")["TopicArn"]
    by = rule({"detail-type": [kind]}, {"Arn": function, "InputPath": "$.detail"}, {"Arn": topic})
    allowed = {"Action": "lambda:InvokeFunction", "Principal": "events.amazonaws.com"}
    client.add_permission(FunctionName="hear", StatementId="e", SourceArn=by, **allowed)
    url = boto3.client("sqs").create_queue(QueueName="hear")["QueueUrl"]
    sns = boto3.client("sns")
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:us-east-1:{ACCOUNT}:hear")
    who = {"Service": "events.amazonaws.com"}
    may = {"Effect": "Allow", "Principal": who, "Action": "sns:Publish", "Resource": topic}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [may]})
    sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
    event = {"Source": "me", "DetailType": kind, "Detail": '{"n": 1}'}
    events.put_events(Entries=[event])
    until(lambda: s3.list_objects_v2(Bucket=name)["KeyCount"])
    assert json.loads(read(s3, name, "heard")) == {"n": 1}
    (message,) = until(lambda: received(url))
    assert json.loads(message["Message"])["detail-type"] == kind


TEMPLATE = """
Parameters:
  Source: {Type: String}
  Store: {Type: String}
  Target: {Type: String}
  Restart: {Type: String, Default: "false"}
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument: TRUST
      Policies:
        - PolicyName: p
          PolicyDocument:
            Version: 2012-10-17
            Statement:
              - {Effect: Allow, Action: ["s3:*", "codepipeline:*"], Resource: "*"}
  Pipeline:
    Type: AWS::CodePipeline::Pipeline
    Properties:
      RoleArn: !GetAtt Role.Arn
      RestartExecutionOnUpdate: !Ref Restart
      ArtifactStore: {Type: S3, Location: !Ref Store}
      DisableInboundStageTransitions: [{StageName: Deploy, Reason: not yet}]
      Stages:
        - Name: Source
          Actions:
            - Name: Take
              ActionTypeId: {Category: Source, Owner: AWS, Provider: S3, Version: 1}
              Configuration:
                S3Bucket: !Ref Source
                S3ObjectKey: site.zip
                PollForSourceChanges: false
              OutputArtifacts: [{Name: Site}]
        - Name: Deploy
          Actions:
            - Name: Put
              ActionTypeId: {Category: Deploy, Owner: AWS, Provider: S3, Version: "1"}
              Configuration: {BucketName: !Ref Target, Extract: true}
              InputArtifacts: [{Name: Site}]
  Trail:
    Type: AWS::CloudTrail::Trail
    Properties:
      IsLogging: true
      S3BucketName: !Ref Store
      EventSelectors:
        - ReadWriteType: WriteOnly
          DataResources:
            - {Type: "AWS::S3::Object", Values: [!Sub "arn:aws:s3:::${Source}/site.zip"]}
  OnUpload:
    Type: AWS::Events::Rule
    Properties:
      EventPattern:
        source: [aws.s3]
        detail-type: [AWS API Call via CloudTrail]
        detail:
          eventSource: [s3.amazonaws.com]
          eventName: [PutObject]
          requestParameters: {bucketName: [!Ref Source], key: [site.zip]}
      Targets:
        - Id: pipeline
          Arn: !Sub "arn:aws:codepipeline:${AWS::Region}:${AWS::AccountId}:${Pipeline}"
          RoleArn: !GetAtt Role.Arn
Outputs:
  Pipeline: {Value: !Ref Pipeline}
"""


def test_a_template_makes_a_pipeline_and_what_starts_it(cp, s3, store, source):
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole"}
    trust["Principal"] = {"Service": ["codepipeline.amazonaws.com", "events.amazonaws.com"]}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    given = {"Source": source, "Store": store, "Target": bucket(s3)}
    cf, name = boto3.client("cloudformation"), f"s{uuid.uuid4().hex[:8]}"
    stack = {"StackName": name, "TemplateBody": TEMPLATE.replace("TRUST", trust)}
    stack["Capabilities"] = ["CAPABILITY_IAM"]
    pairs = lambda values: [  # noqa: E731
        {"ParameterKey": key, "ParameterValue": value} for key, value in values.items()
    ]
    cf.create_stack(**stack, Parameters=pairs(given))
    cf.get_waiter("stack_create_complete").wait(StackName=name)
    (found,) = cf.describe_stacks(StackName=name)["Stacks"]
    made = Made.__new__(Made)
    made.cp, made.name = cp, found["Outputs"][0]["OutputValue"]
    first = made.executions()[-1]["pipelineExecutionId"]
    closed = made.stage("Deploy")["inboundTransitionState"]
    assert (closed["enabled"], closed["disabledReason"]) == (False, "not yet")
    stage = {"pipelineName": made.name, "stageName": "Deploy", "transitionType": "Inbound"}
    cp.enable_stage_transition(**stage)
    made.succeeds(first)
    s3.put_object(Bucket=source, Key="site.zip", Body=zipped(index__html="two"))
    until(lambda: len(made.executions()) == 2)
    made.succeeds(made.executions()[0]["pipelineExecutionId"])
    assert read(s3, given["Target"]) == "two"
    cf.update_stack(**stack, Parameters=pairs(given | {"Restart": "true", "Target": bucket(s3)}))
    cf.get_waiter("stack_update_complete").wait(StackName=name)
    assert cp.get_pipeline(name=made.name)["pipeline"]["version"] == 2
    assert len(made.executions()) == 3
    cf.delete_stack(StackName=name)
    cf.get_waiter("stack_delete_complete").wait(StackName=name)
    assert made.name not in [one["name"] for one in cp.list_pipelines()["pipelines"]]


# --- With CodeCommit, CodeBuild, ECR and EKS

SPEC = """
version: 0.2
env:
  exported-variables: [WORDS]
phases:
  build:
    commands:
      - export WORDS=$(wc -w <index.html)
      - echo "$GREETING $CODEBUILD_RESOLVED_SOURCE_VERSION" >built.txt
      - test "$WORDS" -lt 5
artifacts:
  files: [index.html, built.txt]
"""
docker = pytest.mark.skipif(not machine.docker_engine().works, reason="no Docker Engine")


def commit(repository, **files):
    """Commit files and return the commit's id."""
    client = boto3.client("codecommit")
    put = [{"filePath": n.replace("__", "."), "fileContent": t} for n, t in files.items()]
    branch = {"repositoryName": repository, "branchName": "main"}
    try:
        branch["parentCommitId"] = client.get_branch(**branch)["branch"]["commitId"]
    except ClientError:  # the first one
        branch.pop("parentCommitId", None)
    return client.create_commit(**branch, putFiles=put, commitMessage="say it")["commitId"]


def repository():
    name = f"c{uuid.uuid4().hex[:8]}"
    boto3.client("codecommit").create_repository(repositoryName=name)
    return name


def cloned(name, **more):
    settings = {"RepositoryName": name, "BranchName": "main", "PollForSourceChanges": "false"}
    return action("Source", "CodeCommit", "Take", outputs=["Site"], **settings | more)


def test_a_push_starts_the_pipeline_of_a_rule(pipeline, s3, rule, starter, role):
    name, target = repository(), bucket(s3)
    first = commit(name, index__html="one")
    ask = approve(order=2, CustomData="#{Src.CommitId} #{Src.CommitMessage} #{Src.BranchName}")
    allow("pipeline", ["s3:*", "cloudformation:*", "lambda:*", "codecommit:GetBranch"])
    made = pipeline([cloned(name, namespace="Src")], [put(target), ask])
    assert "have the permissions required to access the" in made.error("Take")["message"]
    allow("pipeline", ["s3:*", "cloudformation:*", "lambda:*", "codecommit:Get*"])
    assert "codecommit:UploadArchive" in made.error("Take", made.start())["message"]
    allow("pipeline", ["s3:*", "cloudformation:*", "lambda:*", "codecommit:*", "codebuild:*"])
    started = made.start()
    made.answer()
    made.succeeds(started)
    assert read(s3, target) == "one"
    asked = made.actions(started)["Ask"]["input"]["resolvedConfiguration"]
    assert asked["CustomData"].split() == [first, "say", "it", "main"]
    assert made.executions()[0]["sourceRevisions"][0]["revisionId"] == first
    where = f"arn:aws:codecommit:us-east-1:{ACCOUNT}:{name}"
    pattern = {"source": ["aws.codecommit"], "resources": [where]}
    pattern["detail-type"] = ["CodeCommit Repository State Change"]
    pattern["detail"] = {"referenceType": ["branch"], "referenceName": ["main"]}
    rule(pattern, {"Arn": arn(made), "RoleArn": starter})
    second = commit(name, index__html="two")
    until(lambda: len(made.executions()) == 4)
    made.answer()
    made.succeeds(made.executions()[0]["pipelineExecutionId"])
    assert made.executions()[0]["sourceRevisions"][0]["revisionId"] == second
    assert read(s3, target) == "two"
    boto3.client("codecommit").delete_repository(repositoryName=name)
    assert "does not exist" in made.error("Take", made.start())["message"]


@docker
@pytest.mark.slow
def test_a_build_passes_on_files_and_variables_and_fails_readably(pipeline, s3, role):
    name, target = repository(), bucket(s3)
    version = commit(name, index__html="one two", buildspec__yml=SPEC)
    builder = make_role(f"r{uuid.uuid4().hex[:8]}", "codebuild", ["s3:*", "logs:*"])
    kind = {"type": "LINUX_CONTAINER", "image": "aws/codebuild/standard:7.0"}
    boto3.client("codebuild").create_project(
        name=name,
        serviceRole=builder,
        source={"type": "CODEPIPELINE"},
        artifacts={"type": "CODEPIPELINE"},
        environment=kind | {"computeType": "BUILD_GENERAL1_SMALL"},
    )
    given = json.dumps([{"name": "GREETING", "value": "#{Src.BranchName}"}])
    settings = {"ProjectName": name, "EnvironmentVariables": given, "namespace": "Built"}
    build = action("Build", "CodeBuild", inputs=["Site"], outputs=["Out"], **settings)
    allow("pipeline", ["s3:*", "codecommit:*"])
    last = [put(target, inputs=["Out"], ObjectKey="#{Built.WORDS}")]
    made = pipeline([cloned(name, namespace="Src")], [build], last)
    error = made.error("CodeBuild")
    assert error["code"] == "PermissionError" and "codebuild:StartBuild" in error["message"]
    allow("pipeline", ["s3:*", "codecommit:*", "codebuild:*"])
    second = made.start()
    made.succeeds(second)
    assert read(s3, target, "2/built.txt").split() == ["main", version]
    done = made.actions(second)["CodeBuild"]["output"]
    assert done["outputVariables"] == {"WORDS": "2"}
    one = done["executionResult"]["externalExecutionId"]
    (facts,) = boto3.client("codebuild").batch_get_builds(ids=[one])["builds"]
    assert facts["initiator"] == f"codepipeline/{made.name}"
    commit(name, index__html="a b c d e f")
    third = made.start()
    message = made.error("CodeBuild", third)["message"]
    assert message.startswith("Build terminated with state: FAILED. Phase: BUILD, Code: COMMAND_EX")
    assert 'test "$WORDS" -lt 5' in message
    commit(name, buildspec__yml=SPEC.replace("test", "sleep 600; test"))
    fourth = made.start()
    running = lambda: made.actions(fourth).get("CodeBuild", {}).get("output", {})  # noqa: E731
    one = until(lambda: running().get("executionResult", {}).get("externalExecutionId"))
    made.cp.delete_pipeline(name=made.name)
    builds = boto3.client("codebuild").batch_get_builds
    until(lambda: builds(ids=[one])["builds"][0]["buildStatus"] == "STOPPED")


def test_a_project_is_a_target_if_the_role_may_start_it(rule):
    name, kind = f"b{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    builder = make_role(f"r{uuid.uuid4().hex[:8]}", "codebuild", "logs:Get*")
    image = {"type": "LINUX_CONTAINER", "image": "aws/codebuild/standard:7.0"}
    client = boto3.client("codebuild")
    where = client.create_project(
        name=name,
        serviceRole=builder,
        source={"type": "NO_SOURCE", "buildspec": SPEC},
        artifacts={"type": "NO_ARTIFACTS"},
        environment=image | {"computeType": "BUILD_GENERAL1_SMALL"},
    )["project"]["arn"]
    by = make_role(f"r{uuid.uuid4().hex[:8]}", "events", "codebuild:StartBuild")
    rule({"detail-type": [kind]}, {"Arn": where, "RoleArn": by})
    event = {"Source": "me", "DetailType": kind, "Detail": "{}"}
    boto3.client("events").put_events(Entries=[event])
    find = lambda: client.list_builds_for_project(projectName=name)["ids"]  # noqa: E731
    (build,) = until(find)
    status = lambda: client.batch_get_builds(ids=[build])["builds"][0]["buildStatus"]  # noqa: E731
    assert until(lambda: status() == "FAILED")  # as its role may write no log


MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - {name: web, image: "$IMAGE", env: [{name: HOME_OF, value: "${NOBODY}"}]}
"""


def cluster(name):
    """Make a cluster of EKS with a node, which may come later."""
    eks, subnets = boto3.client("eks"), boto3.client("ec2").describe_subnets()["Subnets"]
    subnets = {one["AvailabilityZone"]: one["SubnetId"] for one in subnets}
    place = {"subnetIds": list(subnets.values())[:2]}
    roles = {service: make_role(f"{name}-{service}", service) for service in ("eks", "ec2")}
    asked = {"name": name, "roleArn": roles["eks"], "resourcesVpcConfig": place}
    eks.create_cluster(**asked, accessConfig={"authenticationMode": "API"})
    eks.get_waiter("cluster_active").wait(name=name)
    group = {"clusterName": name, "nodegroupName": "n", "subnets": place["subnetIds"]}
    size = {"minSize": 1, "maxSize": 1, "desiredSize": 1}
    eks.create_nodegroup(**group, nodeRole=roles["ec2"], scalingConfig=size)


def administer(name, role):
    """Let a role do everything in a cluster."""
    eks, entry = boto3.client("eks"), {"clusterName": name, "principalArn": role}
    eks.create_access_entry(**entry)
    policy = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
    eks.associate_access_policy(**entry, policyArn=policy, accessScope={"type": "cluster"})


def waiter():
    """A program of Linux that waits for ever: the system call pause, again and again."""
    code = bytes.fromhex("b822000000 0f05 ebf7")
    size, place = 120 + len(code), 0x400000
    head = (b"\x7fELF\x02\x01\x01", 2, 62, 1, place + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    part = (1, 5, 0, place, place, size, size, 4096)
    return struct.pack("<16sHHIQQQIHHHHHH", *head) + struct.pack("<IIQQQQQQ", *part) + code


@docker
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is one for x86-64")
@pytest.mark.slow
def test_an_image_is_built_and_deployed_to_a_cluster(pipeline, s3, source, shared_home):
    name, images = f"r{uuid.uuid4().hex[:8]}", f"i{uuid.uuid4().hex[:8]}"
    may = ["s3:*", "logs:*"]
    own = make_role(name, "codepipeline", may)
    ecr, eks = boto3.client("ecr"), boto3.client("eks")
    ecr.create_repository(repositoryName=images)
    cluster("prod")
    files = {"Dockerfile": 'FROM scratch\nCOPY main /\nCMD ["/main"]\n', "main": waiter()}
    files["k8s/web__yaml"] = MANIFEST
    s3.put_object(Bucket=source, Key="site.zip", Body=zipped(**files))
    settings = {
        "ECRRepositoryName": images,
        "ImageTags": "latest,#{codepipeline.PipelineExecutionId}",
    }
    build = action(
        "Build", "ECRBuildAndPublish", "Image", inputs=["Site"], namespace="Image", **settings
    )
    settings = {"ClusterName": "prod", "ManifestFiles": "k8s/web.yaml"}
    deploy = action("Deploy", "EKS", inputs=["Site"], **settings)
    tag = "#{codepipeline.PipelineExecutionId}"
    on_aws = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/{images}"
    deploy["environmentVariables"] = [{"name": "IMAGE", "value": f"{on_aws}:{tag}"}]
    made = pipeline([take(source)], [build], [deploy], role=own, pipelineType="V2")
    assert "ecr:DescribeRepositories" in made.error("Image")["message"]
    allow(name, [*may, "ecr:*"])
    error = made.error("EKS", second := made.start())
    assert "eks:DescribeCluster" in error["message"]
    group = f"/aws/codepipeline/{made.name}"
    assert boto3.client("logs").describe_log_streams(logGroupName=group)["logStreams"]
    variables = made.actions(second)["Image"]["output"]["outputVariables"]
    (about,) = ecr.describe_images(repositoryName=images)["imageDetails"]
    assert variables == {"ECRImageDigestId": about["imageDigest"], "ECRRepositoryName": images}
    assert sorted(about["imageTags"]) == sorted(["latest", second])
    allow(name, [*may, "ecr:*", "eks:DescribeCluster"])
    retry = {"pipelineName": made.name, "stageName": "End", "pipelineExecutionId": second}
    retry["retryMode"] = "FAILED_ACTIONS"
    made.cp.retry_stage_execution(**retry)
    message = made.error("EKS", second)["message"]
    assert message.startswith("kubectl apply failed:") and "provide credentials" in message
    administer("prod", own)
    eks.get_waiter("nodegroup_active").wait(clusterName="prod", nodegroupName="n")
    made.cp.retry_stage_execution(**retry)
    made.succeeds(second)
    admin = Api(shared_home / "clusters/eks-prod/kubeconfig")
    found = admin.get("/apis/apps/v1/namespaces/default/deployments/web")
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{on_aws}:{second}"
    assert container["env"][0]["value"] == "${NOBODY}"
    assert found["status"]["readyReplicas"] == 1
    files["k8s/web__yaml"] = MANIFEST.replace("kind: Deployment", "kind: Nothing")
    s3.put_object(Bucket=source, Key="site.zip", Body=zipped(**files))
    assert 'no matches for kind "Nothing"' in made.error("EKS", made.start())["message"]
    eks.delete_nodegroup(clusterName="prod", nodegroupName="n")
    eks.get_waiter("nodegroup_deleted").wait(clusterName="prod", nodegroupName="n")
    eks.delete_cluster(name="prod")


STUCK = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: stuck}
spec:
  selector: {matchLabels: {app: stuck}}
  template:
    metadata: {labels: {app: stuck}}
    spec:
      containers:
        - name: stuck
          image: debian:stable-slim
          imagePullPolicy: Never
          command: [sleep, "1000"]
          readinessProbe: {exec: {command: ["false"]}}
"""
WAIT = """
version: 0.2
phases:
  build:
    commands:
      - aws eks update-kubeconfig --name late
      - kubectl rollout status deployment stuck
"""


@docker
@pytest.mark.slow
def test_a_cloud_that_dies_in_mid_deployment_leaves_nothing(
    pipeline, cp, s3, source, shared_home, capsys
):
    """The last test: afterwards the cloud is another one."""
    containers.engine()
    containers.image("debian:stable-slim")
    own = make_role(f"r{uuid.uuid4().hex[:8]}", "codepipeline", ["s3:*", "eks:DescribeCluster"])
    builder = make_role(f"r{uuid.uuid4().hex[:8]}", "codebuild", ["logs:*", "eks:DescribeCluster"])
    cluster("late")
    for role in (own, builder):
        administer("late", role)
    s3.put_object(Bucket=source, Key="site.zip", Body=zipped(stuck__yaml=STUCK))
    settings = {"ClusterName": "late", "ManifestFiles": "stuck.yaml"}
    deploy = action("Deploy", "EKS", inputs=["Site"], **settings)
    made = pipeline([take(source)], [deploy], role=own, pipelineType="V2")

    def waiting():
        """The kubectl of the action that waits for the Deployment."""
        for one in ledger.entries("process"):
            with contextlib.suppress(psutil.Error):
                if made.name in one.name and "rollout" in psutil.Process(one.pid).cmdline():
                    return one
        return None

    os.kill(until(waiting).pid, signal.SIGKILL)
    assert made.error("EKS")["message"].startswith("kubectl rollout was ended by signal 9:")
    second = made.start()
    kubectl = until(waiting)
    client = boto3.client("codebuild")
    project = client.create_project(
        name="wait",
        serviceRole=builder,
        source={"type": "NO_SOURCE", "buildspec": WAIT},
        artifacts={"type": "NO_ARTIFACTS"},
        environment={"type": "LINUX_CONTAINER", "image": "aws/codebuild/standard:7.0"}
        | {"computeType": "BUILD_GENERAL1_SMALL"},
    )["project"]
    build = client.start_build(projectName=project["name"])["build"]["id"]
    logs = boto3.client("logs").filter_log_events
    group = "/aws/codebuild/wait"
    begun = lambda: client.batch_get_builds(ids=[build])["builds"][0]["currentPhase"]  # noqa: E731
    until(lambda: begun() == "BUILD" and "Waiting for deployment" in f"{logs(logGroupName=group)}")
    listed = ["docker", "ps", "-aq", "--filter", f"label={containers.label()}"]
    there = lambda: subprocess.run(listed, capture_output=True, text=True).stdout.split()  # noqa: E731
    assert len(until(there)) > 1
    (entry,) = [one for one in ledger.entries("process") if one.name == local.NAME]
    os.kill(entry.pid, signal.SIGKILL)
    until(lambda: not entry.alive())
    capsys.readouterr()
    cloud.start()
    assert "had died, and what was in it is lost" in capsys.readouterr().out
    assert not kubectl.alive() and until(lambda: not there())
    assert [one.name for one in ledger.entries("process")] == [local.NAME]
    assert not list((shared_home / "cloud").glob("deploy-*"))
    refused("PipelineNotFoundException", lambda: made.execution(second))
    assert client.batch_get_builds(ids=[build])["buildsNotFound"] == [build]
    assert cp.list_pipelines()["pipelines"] == boto3.client("eks").list_clusters()["clusters"] == []
