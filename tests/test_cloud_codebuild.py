"""CodeBuild on the local cloud: builds really run, and fail where they should."""

import io
import json
import os
import signal
import stat
import subprocess
import threading
import time
import zipfile
from types import SimpleNamespace

import boto3
import pytest
import yaml
from asking import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import received, until

from helpers import cloud, containers, ledger, machine
from helpers.cloud import archives, local
from helpers.cloud.codebuild import artifacts, buildspec, image, projects
from helpers.cloud.codebuild import build as build_module
from helpers.cloud.codebuild.container import Container
from helpers.cloud.codebuild.errors import Ended, Failure

ENVIRONMENT = {
    "type": "LINUX_CONTAINER",
    "image": "aws/codebuild/standard:7.0",
    "computeType": "BUILD_GENERAL1_SMALL",
}
real = [
    pytest.mark.slow,
    pytest.mark.skipif(not machine.docker_engine().works, reason="no Docker Engine"),
]


def trust(service="codebuild"):
    one = {"Effect": "Allow", "Action": "sts:AssumeRole"}
    one["Principal"] = {"Service": f"{service}.amazonaws.com"}
    return json.dumps({"Version": "2012-10-17", "Statement": [one]})


def role(name, *actions):
    iam = boto3.client("iam")
    made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust())["Role"]["Arn"]
    one = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [one]})
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy)
    return made


@pytest.fixture(scope="module")
def aws(shared_home):
    if machine.docker_engine().works:
        image.archive()  # takes as long as it takes, once
    return cloud.start()


@pytest.fixture(scope="module")
def api(aws):
    return boto3.client("codebuild")


@pytest.fixture(scope="module")
def builder(aws):
    """A role that may do what a build does."""
    return role("builder", "logs:*", "s3:*", "ssm:GetParameters", "secretsmanager:GetSecretValue")


@pytest.fixture(scope="module")
def project(api, builder):
    """Make a project, and return its name."""
    numbers = iter(range(1000))

    def make(buildspec=None, **more):
        spec = {"buildspec": buildspec} if buildspec else {}
        asked = {
            "name": f"p{next(numbers)}-x",
            "serviceRole": builder,
            "source": {"type": "NO_SOURCE"} | spec,
            "artifacts": {"type": "NO_ARTIFACTS"},
            "environment": ENVIRONMENT,
        }
        return api.create_project(**(asked | more))["project"]["name"]

    return make


@pytest.fixture(scope="module")
def bucket(aws):
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="sources")
    return "sources"


def spec(env=None, artifacts=None, **phases):
    """A buildspec whose phases are lists of commands, or more than that."""
    phases = {
        name: one if isinstance(one, dict) else {"commands": one} for name, one in phases.items()
    }
    made = {"version": "0.2", "env": env, "phases": phases, "artifacts": artifacts}
    return yaml.safe_dump({name: one for name, one in made.items() if one}, sort_keys=False)


class Result:
    """A build that is over."""

    def __init__(self, facts):
        self.facts, self.status = facts, facts["buildStatus"]
        self.phases = {one["phaseType"]: one for one in facts["phases"]}

    def failed(self):
        """The phase that failed, with code and message."""
        (name, one), *_ = [
            (name, one) for name, one in self.phases.items() if one.get("phaseStatus") == "FAILED"
        ]
        (context,) = one["contexts"]
        return name, context["statusCode"], context["message"]

    @property
    def log(self):
        """What the commands have written, and the agent's lines without their time."""
        return [
            line.split(" ", 3)[3] if line.startswith("[Container]") else line
            for line in lines(self.facts)
        ]


def lines(facts):
    where = facts["logs"]
    where = {"logGroupName": where["groupName"], "logStreamName": where["streamName"]}
    events = boto3.client("logs").get_log_events(**where, startFromHead=True)["events"]
    return [event["message"].rstrip("\n") for event in events]


def look(api, build):
    return api.batch_get_builds(ids=[build["id"]])["builds"][0]


def finish(api, build):
    return Result(until(lambda: (now := look(api, build))["buildComplete"] and now))


@pytest.fixture(scope="module")
def run(api, project):
    """Build a buildspec, or a project, and wait for the end."""

    def build(text=None, name=None, **more):
        name = name or project(text or "{}")
        return finish(api, api.start_build(projectName=name, **more)["build"])

    return build


def packed(files):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return body.getvalue()


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x"])
def test_an_archive_whose_paths_lead_out_of_it_is_not_unpacked(path):
    with pytest.raises(ValueError, match="leads out"):
        archives.unpack(packed({"good": "", path: ""}))


# --- The buildspec


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("version: 0.2\nphases: [", "line 2"),
        ("phases: {build: {commands: [a]}}", "version"),
        ("version: 0.3\nphases: {build: {commands: [a]}}", "0.3"),
        ("version: 0.2\nphases: {compile: {commands: [a]}}", "compile"),
        ("version: 0.2\nphases: {build: {commands: {a: b}}}", "list of texts"),
        ("version: 0.2\nphases: {build: {commands: [a, {b: c}]}}", r"\[1\].*found subkeys instead"),
        ("version: 0.2\nenvironment_variables: {plaintext: {A: b}}", "environment_variables"),
        ("version: 0.2\nphases: {build: {commands: []}}", "at least one"),
        ("version: 0.2\nstages: {}", "stages"),
        ("version: 0.2\nenv: {shell: powershell}\nphases: {build: {commands: [a]}}", "powershell"),
        ("version: 0.2\nphases: {build: {commands: [a], on-failure: GO}}", "GO"),
        ("just text", "mapping"),
    ],
)
def test_a_bad_buildspec_is_refused_with_the_reason(text, why):
    with pytest.raises(buildspec.Invalid, match=why):
        buildspec.parse(text)


def test_older_and_shorter_forms_are_read():
    older = (
        "version: 0.1\nenvironment_variables: {plaintext: {A: b}}\nphases: {build: {commands: c}}"
    )
    found = buildspec.parse(older)
    assert (found.variables, found.phases["build"].commands) == ({"A": "b"}, ["c"])
    runtimes = "runtime-versions: {python: 3.12, nodejs: 18}, commands: [a]"
    notes = buildspec.parse(f"version: 0.2\nphases: {{install: {{{runtimes}}}}}").notes
    assert [note.split(" is ", 1)[1] for note in notes] == [
        "not chosen; the image's is used",
        "not in this image",
    ]


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1)


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(buildspec.PHASES), st.lists(WORDS, min_size=1), min_size=1))
def test_commands_are_read_as_they_were_written(phases):
    text = yaml.safe_dump(
        {"version": 0.2, "phases": {name: {"commands": one} for name, one in phases.items()}}
    )
    found = buildspec.parse(text).phases
    assert {name: one.commands for name, one in found.items()} == phases


NESTED = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from("version env phases artifacts build commands files variables".split())
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
)


@settings(max_examples=100)
@given(NESTED, st.text(max_size=20))
def test_whatever_comes_is_a_buildspec_or_is_refused(value, text):
    for one in (yaml.safe_dump(value), text):
        try:
            assert buildspec.parse(one).phases
        except buildspec.Invalid as problem:
            assert str(problem)


TREE = {name: (b"", 0o644) for name in ("a.txt", "out/b.txt", "out/deep/c.py", "x/d")}
TREE |= {name: (b"", 0o755 | stat.S_IFDIR) for name in ("", "out", "out/deep", "x", "x/e")}


@pytest.mark.parametrize(
    ("block", "names"),
    [
        ({"files": ["**/*"]}, ["a.txt", "out/b.txt", "out/deep/c.py", "x/d"]),
        ({"files": ["*"]}, ["a.txt"]),
        ({"files": ["out/*"]}, ["out/b.txt"]),
        ({"files": ["./out/**/*"], "discard-paths": "yes"}, ["b.txt", "c.py"]),
        ({"files": ["**/*"], "exclude-paths": ["**/*.py"]}, ["a.txt", "out/b.txt", "x/d"]),
        ({"files": ["*.py"], "base": "out/deep"}, ["c.py"]),
        ({"files": ["**/*"], "base": "o*"}, ["b.txt", "deep/c.py"]),
        ({"files": ["**/*"], "base": "./out/deep/"}, ["c.py"]),
        ({"files": ["x/*"], "base": "x"}, []),
        ({"files": ["x/d"]}, ["x/d"]),
        ({"files": ["**/*"], "base": "x/e"}, []),
        ({"files": ["nothing"]}, []),
    ],
)
def test_artifacts_are_the_files_that_match(block, names):
    base = block.pop("base", ".")
    assert sorted(artifacts.choose(TREE, {"exclude-paths": []} | block, base)) == names


@pytest.mark.parametrize("base", ["dist", "out/d", "a.txt", "ou", "*/*/deep"])
def test_a_base_directory_that_is_not_there_is_named(base):
    with pytest.raises(Failure) as problem:
        artifacts.choose(TREE, {"files": ["**/*"], "exclude-paths": []}, base)
    text = f"no matching base directory path found for {base}"
    assert problem.value.args == ("CLIENT_ERROR", text)


# --- Projects


class TestProjects:
    pytestmark = real[1:]

    def test_a_project_is_made_changed_and_deleted(self, api, project):
        name = project(spec(build=["true"]), description="one")
        (found,) = api.batch_get_projects(names=[name, "none"])["projects"]
        assert found["timeoutInMinutes"] == 60 and found["description"] == "one"
        api.update_project(name=name, description="two", timeoutInMinutes=7)
        answer = api.batch_get_projects(names=[found["arn"], "none"])
        assert answer["projects"][0]["description"] == "two"
        assert answer["projects"][0]["source"] == found["source"]
        assert answer["projectsNotFound"] == ["none"]
        assert name in api.list_projects()["projects"]
        api.delete_project(name=name)
        assert name not in api.list_projects()["projects"]
        refused("ResourceNotFoundException", api.start_build, projectName=name)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"name": "a b"},
            {"timeoutInMinutes": 2161},
            {"queuedTimeoutInMinutes": 481},
            {"serviceRole": "arn:aws:iam::123456789012:role/nobody"},
            {"source": {"type": "NO_SOURCE"}},
            {"source": {"type": "S3"}},
            {"artifacts": {"type": "S3"}},
            {"environment": ENVIRONMENT | {"computeType": "HUGE"}},
        ],
    )
    def test_what_aws_does_not_take_is_refused(self, project, wrong):
        refused("InvalidInputException", lambda: project(spec(build=["true"]), **wrong))

    @pytest.mark.parametrize(
        "missing",
        [
            {"source": {"type": "GITHUB", "location": "https://example.com/a.git"}},
            {"vpcConfig": {"vpcId": "vpc-1", "subnets": ["s"], "securityGroupIds": ["g"]}},
        ],
    )
    def test_what_is_not_here_says_so(self, project, missing):
        refused("NotImplemented", lambda: project(spec(build=["true"]), **missing))

    def test_a_role_that_does_not_trust_codebuild_is_refused(self, project):
        iam = boto3.client("iam")
        document = trust("lambda")
        other = iam.create_role(RoleName="other", AssumeRolePolicyDocument=document)["Role"]["Arn"]
        make = lambda: project(spec(build=["true"]), serviceRole=other)  # noqa: E731
        assert "sts:AssumeRole" in refused("InvalidInputException", make)


# --- Builds


def test_a_build_waits_in_line_only_as_long_as_it_may(monkeypatch):
    """The API's shortest time is five minutes: here the clock is the test's own."""
    clock, full = SimpleNamespace(now=0, asked=0), threading.BoundedSemaphore(1)

    def monotonic():
        clock.asked += 1
        return clock.now

    full.acquire()
    monkeypatch.setattr(build_module, "SLOTS", full)
    monkeypatch.setattr(build_module, "time", SimpleNamespace(monotonic=monotonic))
    monkeypatch.setattr(build_module.sts, "assume", lambda *_: ("key", "secret", "token"))
    asked = {
        "name": "queued",
        "serviceRole": "arn:aws:iam::123456789012:role/builder",
        "source": {"type": "NO_SOURCE", "buildspec": spec(build=["true"])},
        "artifacts": {"type": "NO_ARTIFACTS"},
        "environment": ENVIRONMENT,
        "logsConfig": {"cloudWatchLogs": {"status": "DISABLED"}},
        "queuedTimeoutInMinutes": 5,
    }
    facts = projects.build(projects.new(asked, "us-east-1"), {"initiator": "me"})
    build = build_module.Build("us-east-1", facts | {"buildNumber": 1}, [asked["source"]], [])
    until(lambda: build.facts["currentPhase"] == "QUEUED")
    clock.now, before = 299, clock.asked
    until(lambda: clock.asked > before + 2)
    assert build.facts["currentPhase"] == "QUEUED"
    clock.now = 301
    until(build.done.is_set)
    done = Result(build.facts)
    assert done.status == done.phases["QUEUED"]["phaseStatus"] == "TIMED_OUT"
    assert done.phases["QUEUED"]["contexts"][0]["statusCode"] == "BUILD_TIMED_OUT"
    assert "PROVISIONING" not in done.phases


class TestBuilds:
    pytestmark = real

    def test_all_commands_share_one_shell(self, run):
        done = run(
            spec(
                env={"variables": {"NAME": "it's me"}, "exported-variables": ["TAG", "NAME", "NO"]},
                install=["TAG=v1", "greet() { echo hello $1; }"],
                pre_build=["mkdir -p deep && cd deep", "export OTHER=$TAG-x"],
                build=["pwd", 'greet "$NAME"', "for n in 1 2; do\n  echo $n $OTHER\ndone\n"],
                post_build=["echo $CODEBUILD_BUILD_SUCCEEDING"],
            )
        )
        assert done.status == "SUCCEEDED"
        agent = ("Phase", "Running", "Entering")
        said = [line for line in done.log if not line.startswith(agent)][-5:]
        assert said[0].endswith("/src/deep")
        assert said[1:] == ["hello it's me", "1 v1-x", "2 v1-x", "1"]
        exported = {one["name"]: one["value"] for one in done.facts["exportedEnvironmentVariables"]}
        assert exported == {"TAG": "v1", "NAME": "it's me", "NO": ""}
        assert (
            list(done.phases)
            == (
                "SUBMITTED QUEUED PROVISIONING DOWNLOAD_SOURCE INSTALL PRE_BUILD BUILD POST_BUILD "
                "UPLOAD_ARTIFACTS FINALIZING COMPLETED"
            ).split()
        )
        assert any("stands in" in line for line in done.log)

    def test_events_tell_what_becomes_of_a_build(self, run, project):
        queue = boto3.client("sqs").create_queue(QueueName="builds")["QueueUrl"]
        events = boto3.client("events")
        pattern = {"source": ["aws.codebuild"], "detail": {"build-status": ["FAILED"]}}
        events.put_rule(Name="failed", EventPattern=json.dumps(pattern))
        target = {"Id": "q", "Arn": "arn:aws:sqs:us-east-1:123456789012:builds"}
        events.put_targets(Rule="failed", Targets=[target])
        name = project(spec(build=["false"]))
        done = run(name=name)
        (event,) = until(lambda: received(queue))
        assert event["detail-type"] == "CodeBuild Build State Change"
        assert event["resources"] == [done.facts["arn"]]
        assert event["detail"]["project-name"] == name

    @pytest.mark.parametrize("phase", ["install", "pre_build", "build", "post_build"])
    def test_a_command_that_fails_fails_its_phase(self, run, phase):
        fails = {"commands": ["(exit 3)", "echo not this"], "finally": ["echo this"]}
        done = run(spec(**{phase: fails}))
        assert done.status == "FAILED"
        assert done.failed() == (
            phase.upper(),
            "COMMAND_EXECUTION_ERROR",
            "Error while executing command: (exit 3). Reason: exit status 3",
        )
        assert "this" in done.log and "not this" not in done.log
        assert ("POST_BUILD" in done.phases) == (phase in ("build", "post_build"))

    def test_post_build_runs_after_a_failed_build_and_exit_ends_only_the_command(self, run):
        text = spec(
            build=["A=1; export B=2; cd /", "exit 4"],
            post_build=["echo $B $PWD $CODEBUILD_BUILD_SUCCEEDING"],
        )
        done = run(text)
        assert done.status == "FAILED" and "2 / 0" in done.log
        assert "exit status 4" in done.failed()[2]
        assert "Phase complete: BUILD State: FAILED" in done.log

    def test_on_failure_decides_what_comes_next(self, run):
        done = run(spec(build={"commands": ["false"], "on-failure": "ABORT"}, post_build=["true"]))
        assert done.status == "FAILED" and "POST_BUILD" not in done.phases
        goes_on = {"commands": ["false"], "on-failure": "CONTINUE"}
        done = run(spec(install=goes_on, build=["echo went on"]))
        assert done.status == "FAILED" and "went on" in done.log

    def test_in_version_0_1_each_command_has_its_own_shell(self, run):
        text = spec(build=["A=1; cd /", "echo [$A] $PWD"]).replace("0.2", "0.1")
        assert any(line.startswith("[] /codebuild") for line in run(text).log)

    def test_a_command_may_be_a_comment_only(self, run):
        done = run(spec(build=["# nothing", "", "echo after it"]))
        assert done.status == "SUCCEEDED" and "after it" in done.log

    def test_bash_where_the_buildspec_asks_for_it(self, run):
        assert "b" in run(spec(env={"shell": "bash"}, build=["A=(a b)", "echo ${A[1]}"])).log

    def test_a_build_is_its_role(self, run):
        done = run(
            spec(
                build=[
                    "aws sts get-caller-identity --query Arn",
                    "aws s3api create-bucket --bucket made-by-build",
                    "aws iam list-users",
                ]
            )
        )
        assert any("assumed-role/builder/AWSCodeBuild-" in line for line in done.log)
        boto3.client("s3").head_bucket(Bucket="made-by-build")
        assert "exit status" in done.failed()[2] and any("iam:ListUsers" in one for one in done.log)

    def test_start_build_may_replace_what_the_project_says(self, api, run, project):
        name = project(spec(env={"variables": {"A": "spec", "B": "spec"}}, build=["echo $A $B"]))
        api.update_project(
            name=name,
            environment=ENVIRONMENT | {"environmentVariables": [{"name": "A", "value": "project"}]},
        )
        assert "project spec" in run(name=name).log
        more = {"environmentVariablesOverride": [{"name": "A", "value": "start"}]}
        done = run(name=name, **more)
        assert "start spec" in done.log and done.facts["buildNumber"] == 2
        assert "other" in run(name=name, buildspecOverride=spec(build=["echo other"])).log
        refused(
            "NotImplemented", api.start_build, projectName=name, fleetOverride={"fleetArn": "x"}
        )
        again = finish(api, api.retry_build(id=done.facts["id"])["build"])
        assert "start spec" in again.log and again.facts["buildNumber"] == 4
        ids = api.list_builds_for_project(projectName=name)["ids"]
        assert ids[0] == again.facts["id"] and len(ids) == 4 and api.list_builds()["ids"][:4] == ids

    def test_parameters_and_secrets_are_read_as_the_role_and_hidden(self, run, project):
        boto3.client("ssm").put_parameter(Name="/shop/key", Value="s3same", Type="SecureString")
        secrets = boto3.client("secretsmanager")
        secrets.create_secret(Name="db", SecretString='{"password": "hunter2"}')
        env = {"parameter-store": {"KEY": "/shop/key"}, "secrets-manager": {"PW": "db:password"}}
        text = spec(env=env, build=["echo $KEY $PW ${#KEY} ${#PW}"])
        assert "*** *** 6 7" in run(text).log
        denied = project(text, serviceRole=role("few", "logs:*"))
        phase, code, message = run(name=denied).failed()
        assert (phase, code) == ("DOWNLOAD_SOURCE", "Decrypted Variables Error")
        assert "not authorized to perform: ssm:GetParameters" in message
        missing = spec(env={"parameter-store": {"KEY": "/no"}}, build=["true"])
        assert run(missing).failed()[2] == "parameter does not exist: /no"

    def test_a_role_that_may_not_write_logs_fails_at_once(self, run, project):
        name = project(spec(build=["true"]), serviceRole=role("mute", "s3:*"))
        phase, code, message = run(name=name).failed()
        assert (phase, code) == ("SUBMITTED", "ACCESS_DENIED")
        assert "not authorized to perform: logs:CreateLogStream" in message

    def test_an_image_that_is_not_there(self, run):
        done = run(spec(build=["true"]), imageOverride="no-such-image:1")
        phase, code, message = done.failed()
        assert (phase, code) == ("PROVISIONING", "BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE")
        assert "no-such-image:1" in message

    def test_another_image_that_is_there(self, run):
        containers.engine()
        containers.image("debian:stable-slim")
        done = run(spec(build=["echo $CODEBUILD_BUILD_IMAGE"]), imageOverride="debian:stable-slim")
        assert done.status == "SUCCEEDED" and "debian:stable-slim" in done.log

    def test_a_log_can_be_followed_and_a_build_stopped(self, api, project):
        name = project(spec(build=["echo begun; sleep 1000"], post_build=["echo no"]))
        build = api.start_build(projectName=name)["build"]
        until(
            lambda: (now := look(api, build))["currentPhase"] == "BUILD" and "begun" in lines(now)
        )
        refused("InvalidInputException", api.retry_build, id=build["id"])
        api.stop_build(id=build["id"])
        done = finish(api, build)
        assert done.status == done.phases["BUILD"]["phaseStatus"] == "STOPPED"
        assert "POST_BUILD" not in done.phases

    def test_more_builds_than_cores_wait_in_line(self, api, project):
        name = project(spec(build=["sleep 1000"]))
        builds = [api.start_build(projectName=name)["build"] for _ in range(machine.cores() + 1)]
        phases = lambda: sorted(look(api, one)["currentPhase"] for one in builds)  # noqa: E731
        until(lambda: phases() == ["BUILD"] * machine.cores() + ["QUEUED"])
        for one in builds:
            api.stop_build(id=one["id"])
        assert {finish(api, one).status for one in builds} == {"STOPPED"}

    def test_what_takes_too_long_is_ended(self, aws):
        """The API's shortest time is five minutes: here the clock is the test's own."""
        end = time.monotonic() + 0.5

        def watch():
            if time.monotonic() > end:
                raise Ended("TIMED_OUT")

        containers.engine()
        containers.image("debian:stable-slim")
        box = Container("debian:stable-slim", build="b:1", privileged=False, watch=watch)
        try:
            box.begin("sh", "/", {})
            with pytest.raises(Ended, match="TIMED_OUT"):
                box.run("sleep 1000")
        finally:
            box.close()


class TestSources:
    pytestmark = real

    def s3(self, project, bucket, files, **more):
        boto3.client("s3").put_object(Bucket=bucket, Key="app.zip", Body=packed(files))
        return project(source={"type": "S3", "location": f"{bucket}/app.zip"}, **more)

    def test_source_and_artifacts_in_s3(self, run, project, bucket):
        block = {"files": "out/*.txt", "base-directory": ".", "discard-paths": "yes"}
        text = spec(build=["mkdir out; tr a-z A-Z <a.txt >out/A.txt"], artifacts=block)
        place = {"type": "S3", "location": bucket, "path": "made", "name": "all.zip"}
        files = {"a.txt": "hello", "buildspec.yml": text}
        name = self.s3(project, bucket, files, artifacts=place | {"packaging": "ZIP"})
        done = run(name=name)
        assert done.status == "SUCCEEDED", done.log
        assert done.facts["artifacts"]["location"] == f"arn:aws:s3:::{bucket}/made/all.zip"
        answer = boto3.client("s3").get_object(Bucket=bucket, Key="made/all.zip")
        assert answer["ServerSideEncryption"] == "aws:kms"
        with zipfile.ZipFile(io.BytesIO(answer["Body"].read())) as archive:
            assert {one: archive.read(one) for one in archive.namelist()} == {"A.txt": b"HELLO"}

    def test_artifacts_as_files_below_a_base_directory(self, run, project, bucket):
        block = {"files": ["**/*"], "base-directory": "out"}
        place = {"type": "S3", "location": bucket, "name": "flat", "encryptionDisabled": True}
        text = spec(build=["mkdir -p out/deep; echo 1 >out/deep/x"], artifacts=block)
        assert run(name=project(text, artifacts=place)).status == "SUCCEEDED"
        answer = boto3.client("s3").head_object(Bucket=bucket, Key="flat/deep/x")
        assert "ServerSideEncryption" not in answer

    def test_artifacts_by_their_whole_path(self, run, project, bucket):
        place = {"type": "S3", "location": bucket, "name": "whole"}
        block = {"files": ["$CODEBUILD_SRC_DIR/a"]}
        more = {"secondary": {"files": ["b"], "base-directory": "/tmp/out"}}
        second = [place | {"name": "second", "artifactIdentifier": "secondary"}]
        commands = ["echo 1 >a; mkdir /tmp/out; echo 2 >/tmp/out/b"]
        text = spec(build=commands, artifacts=block | {"secondary-artifacts": more})
        done = run(name=project(text, artifacts=place, secondaryArtifacts=second))
        assert done.status == "SUCCEEDED", done.log
        boto3.client("s3").head_object(Bucket=bucket, Key="whole/a")
        boto3.client("s3").head_object(Bucket=bucket, Key="second/b")

    @pytest.mark.parametrize(
        ("base", "why"),
        [
            ("made", "no matching artifact paths found"),
            ("dist", "no matching base directory path found for dist"),
        ],
    )
    def test_no_file_matches(self, run, project, bucket, base, why):
        block = {"files": ["*.jar"], "base-directory": base}
        text = spec(build=["mkdir -p made"], artifacts=block)
        name = project(text, artifacts={"type": "S3", "location": bucket})
        assert run(name=name).failed() == ("UPLOAD_ARTIFACTS", "CLIENT_ERROR", why)

    def test_no_buildspec_and_a_bad_one(self, run, project, bucket):
        phase, code, message = run(name=self.s3(project, bucket, {"a": ""})).failed()
        assert (phase, code) == ("DOWNLOAD_SOURCE", "YAML_FILE_ERROR")
        assert message.startswith("stat /codebuild/output/src")
        assert message.endswith("/buildspec.yml: no such file or directory")
        files = {"buildspec.yml": "version: 0.2\nphases: ["}
        assert "line 2" in run(name=self.s3(project, bucket, files)).failed()[2]

    def test_a_source_that_the_role_may_not_read(self, run, project, bucket):
        name = self.s3(project, bucket, {"a": ""}, serviceRole=role("blind", "logs:*"))
        phase, code, message = run(name=name).failed()
        assert (phase, code) == ("DOWNLOAD_SOURCE", "CLIENT_ERROR")
        assert "not authorized to perform: s3:GetObject" in message


class TestDocker:
    pytestmark = real

    def test_only_privileged_builds_have_docker(self, run, project):
        build = 'printf "FROM scratch\\nENV A=1\\n" | docker build -q -t lab-made-by-build -'
        name = project(spec(build=["docker version --format {{.Server.Os}}", build]))
        done = run(name=name)
        assert done.status == "FAILED"
        assert any("Cannot connect to the Docker daemon" in line for line in done.log)
        done = run(name=name, privilegedModeOverride=True)
        assert done.status == "SUCCEEDED", done.log
        listed = ["docker", "images", "-q", "lab-made-by-build", "--filter"]
        listed.append(f"label={containers.label()}")
        assert subprocess.run(listed, capture_output=True).stdout  # so that `down` removes it

    def test_the_registry_goes_by_its_name_on_aws(self, run, project):
        boto3.client("ecr").create_repository(repositoryName="shop")
        commands = [
            "host=123456789012.dkr.ecr.$AWS_REGION.amazonaws.com",
            "aws ecr get-login-password | docker login -u AWS --password-stdin $host",
            'printf "FROM scratch\nENV A=1\n" | docker build -q -t $host/shop:new -',
            "docker push $host/shop:new",
        ]
        pusher = role("pusher", "logs:*", "ecr:*")
        name = project(spec(build=commands), serviceRole=pusher)
        done = run(name=name, privilegedModeOverride=True)
        assert done.status == "SUCCEEDED", done.log
        (image,) = boto3.client("ecr").list_images(repositoryName="shop")["imageIds"]
        assert image["imageTag"] == "new"

    def test_a_dead_cloud_leaves_no_build(self, api, project, aws):
        """The last test: afterwards the cloud is another one."""
        name = project(spec(build=["sleep 1000"]))
        build = api.start_build(projectName=name)["build"]
        until(lambda: look(api, build)["currentPhase"] == "BUILD")
        listed = ["docker", "ps", "-aq", "--filter", f"label={containers.label()}"]
        there = lambda: subprocess.run(listed, capture_output=True).stdout  # noqa: E731
        assert there()
        (entry,) = [one for one in ledger.entries("process") if one.name == local.NAME]
        os.kill(entry.pid, signal.SIGKILL)
        until(lambda: not there())
