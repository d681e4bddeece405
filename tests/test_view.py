"""The live page draws what really comes and goes, and breaks only what the page asks for."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request

import boto3
import pytest
from kube import kubectl, read
from waiting import page, until

from helpers import cloud, cluster, containers, ledger, machine, view, vm
from helpers.cloud import environment
from helpers.cloud.codebuild import image as build_image
from helpers.view.server import PAGE

docker = pytest.mark.skipif(not machine.docker_engine().works, reason="no Docker Engine")
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"Service": ["codebuild.amazonaws.com", "codepipeline.amazonaws.com"]},
        }
    ],
}


def boxes(url):
    """What the page draws: the state of each box by the names that lead to it."""
    found = {}

    def walk(path, box):
        found[(*path, box["name"])] = box["word"]
        for one in box["inside"]:
            walk((*path, box["name"]), one)

    for section in json.loads(page(f"{url}now"))["sections"]:
        for box in section["boxes"]:
            walk((section["title"],), box)
    return found


def fault(url, name, **headers):
    """Ask for a fault as the page does, and return the status and what is said."""
    headers = {"X-Lab-Page": "1"} | headers
    request = urllib.request.Request(f"{url}fault", name.encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read())["said"]
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read().decode()


def command(*words):
    done = [sys.executable, "-m", "helpers", *words]
    return subprocess.run(done, capture_output=True, text=True)


def test_a_machine_comes_and_is_killed_only_by_the_page_itself(home):
    url = view.start()
    assert view.start() == url and command("view").stdout.startswith(url)
    assert boxes(url) == {}
    with vm.boot(name="web") as web:
        until(lambda: boxes(url).get(("Virtual machines", "web")) == "running")
        assert "vm/web\n" in command("fault").stdout
        for headers in (
            {"X-Lab-Page": ""},
            {"Origin": "http://elsewhere.example"},
            {"Sec-Fetch-Site": "cross-site"},
        ):
            assert fault(url, "vm/web", **headers)[0] == 403
        assert fault(url.rsplit("/", 2)[0] + "/guess/", "vm/web")[0] == 404
        assert fault(url, "vm/nothing")[0] == 409
        assert web.alive()
        assert fault(url, "vm/web", Origin=url.rsplit("/", 2)[0])[0] == 200
        until(lambda: boxes(url) == {})
        assert not web.alive()
    assert "could be broken" in command("fault").stdout
    done = command("fault", "vm/web")
    assert done.returncode == 1 and "no such fault" in done.stderr


def test_a_browser_is_told_when_something_has_changed_and_others_see_nothing(home):
    url = view.start()
    with urllib.request.urlopen(f"{url}now") as answer:
        mark = answer.headers["X-Lab-Mark"]
    with urllib.request.urlopen(f"{url}now?seen={mark}") as answer:
        assert (answer.status, answer.read()) == (204, b"")
    ledger.spawn("a sleeper", ["sleep", "300"])
    until(lambda: page(f"{url}now?seen={mark}"))
    assert boxes(url) == {("Processes of the course", "a sleeper"): "running"}
    for wrong in (url.rsplit("/", 2)[0] + "/", url.rsplit("/", 2)[0] + "/guess/now", f"{url}x"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(wrong)


def test_the_page_stands_alone():
    text = PAGE.read_text()
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text.replace("<!doctype", ""))
    assert not re.findall(r'(?:src|href|fetch\()="?/', text), "only relative addresses"
    assert 'lang="en"' in text and 'aria-live="polite"' in text


@docker
def test_a_container_comes_and_is_killed(home):
    url = view.start()
    containers.engine()
    containers.image("debian:stable-slim")
    run = f"docker run -d --label {containers.label()} --name {containers.prefix()}-box"
    run += " debian:stable-slim sleep 300"
    subprocess.run(run, shell=True, check=True, capture_output=True)
    box = ("Containers", f"{containers.prefix()}-box")
    until(lambda: boxes(url).get(box) == "running")
    # The base image may be somebody else's, who had it first.
    build = f"docker build --label {containers.label()} --tag {box[1]}:1 -"
    recipe = b"FROM debian:stable-slim"
    subprocess.run(build, shell=True, check=True, capture_output=True, input=recipe)
    until(lambda: ("Images", f"{box[1]}:1") in boxes(url))
    done = command("fault", "container/")
    assert done.returncode == 0 and "docker kill" in done.stdout, done.stderr
    until(lambda: boxes(url).get(box) == "Exited (137)")
    subprocess.run(["docker", "rm", box[1]], check=True, capture_output=True)
    until(lambda: box not in boxes(url))


def test_stacks_and_instances_of_the_local_cloud_are_drawn(home):
    aws, url = cloud.start(), view.start()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(aws.endpoint + environment.NOW)
    stacks = boto3.client("cloudformation")
    body = {"Resources": {"Store": {"Type": "AWS::S3::Bucket"}}}
    stacks.create_stack(StackName="web", TemplateBody=json.dumps(body))
    until(lambda: boxes(url).get(("AWS: stacks", "web", "Store")) == "CREATE_COMPLETE")
    until(lambda: boxes(url).get(("AWS: stacks", "web")) == "CREATE_COMPLETE")
    (store,) = boto3.client("s3").list_buckets()["Buckets"]
    assert boxes(url)[("AWS: buckets", store["Name"])] == "0 objects"
    ec2 = boto3.client("ec2")
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    made = ec2.run_instances(ImageId=image, InstanceType="t3.nano", MinCount=1, MaxCount=1)
    name = made["Instances"][0]["InstanceId"]
    until(lambda: boxes(url).get(("AWS: instances", name)) == "running")
    assert fault(url, f"vm/{name}")[0] == 200
    until(lambda: boxes(url).get(("AWS: instances", name)) == "stopped")
    stacks.delete_stack(StackName="web")
    until(lambda: ("AWS: stacks", "web") not in boxes(url))


@docker
@pytest.mark.slow
def test_builds_and_pipelines_are_drawn_and_a_build_is_killed(home):
    build_image.archive()
    cloud.start()
    url, builds, iam = view.start(), boto3.client("codebuild"), boto3.client("iam")
    made = iam.create_role(RoleName="all", AssumeRolePolicyDocument=json.dumps(TRUST))
    role = made["Role"]["Arn"]
    iam.attach_role_policy(RoleName="all", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    spec = "version: 0.2\nphases: {build: {commands: [sleep 300]}}"
    builds.create_project(
        name="long",
        serviceRole=role,
        source={"type": "NO_SOURCE", "buildspec": spec},
        artifacts={"type": "NO_ARTIFACTS"},
        environment={
            "type": "LINUX_CONTAINER",
            "image": "aws/codebuild/standard:7.0",
            "computeType": "BUILD_GENERAL1_SMALL",
        },
    )
    one = builds.start_build(projectName="long")["build"]["id"]
    place = ("AWS: builds", one[:50])
    until(lambda: boxes(url).get((*place, "BUILD")) == "IN_PROGRESS")
    until(lambda: fault(url, f"build/{one}")[0] == 200)
    until(lambda: boxes(url)[place] not in ("IN_PROGRESS", "SUCCEEDED"))
    assert boxes(url)[(*place, "PROVISIONING")] == "SUCCEEDED"
    _pipeline(role)
    there = ("AWS: pipelines", "p")
    until(lambda: boxes(url).get((*there, "Ask", "Ask")) == "waits for approval")
    assert boxes(url)[(*there, "Source")] == "Succeeded"


def _pipeline(role):
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="p-source")
    s3.put_bucket_versioning(Bucket="p-source", VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket="p-source", Key="a.zip", Body=b"PK\5\6" + bytes(18))

    def stage(name, category, provider, outputs, **settings):
        kind = {"category": category, "owner": "AWS", "provider": provider, "version": "1"}
        action = {"name": name, "actionTypeId": kind, "configuration": settings}
        return {"name": name, "actions": [action | {"outputArtifacts": outputs}]}

    where = {"S3Bucket": "p-source", "S3ObjectKey": "a.zip", "PollForSourceChanges": "false"}
    stages = [
        stage("Source", "Source", "S3", [{"name": "Site"}], **where),
        stage("Ask", "Approval", "Manual", []),
    ]
    store = {"type": "S3", "location": "p-source"}
    asked = {"name": "p", "roleArn": role, "artifactStore": store, "stages": stages}
    boto3.client("codepipeline").create_pipeline(pipeline=asked)


@pytest.mark.slow
@pytest.mark.parametrize("rung", [pytest.param("docker", marks=docker), "process"])
def test_a_pod_and_a_node_are_killed(rung, home, monkeypatch, tmp_path):
    monkeypatch.setenv("LAB_PODS", rung)
    monkeypatch.setenv("LAB_CLUSTER", "ours")
    lab, url = cluster.start(), view.start()
    folder = tmp_path / "box"
    folder.mkdir()
    (folder / "Dockerfile").write_text('FROM python:3-slim\nCMD ["sleep", "300"]\n')
    (node,), image = lab.nodes(), cluster.image("box:1", folder)
    kubectl("run", "box", "--image", image)
    pod = (f"Kubernetes: {lab.name}", node, "box")
    until(lambda: boxes(url).get(pod) == "Running")
    assert fault(url, "pod/default/box")[0] == 200
    until(lambda: boxes(url).get(pod) == "Running, 1 restart")
    assert read("pod", "box")["status"]["containerStatuses"][0]["restartCount"] == 1
    assert fault(url, f"node/{lab.name}/{node}")[0] == 200
    until(lambda: boxes(url).get(pod[:2]) == "NotReady")
    assert lab.nodes() == []
