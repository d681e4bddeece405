"""ECR on the local cloud: images that are really pushed and pulled, by those who may."""

import base64
import hashlib
import http.client
import json
import os
import re
import time
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import boto3
import pytest
import urllib3
from asking import good, refused, sh
from hypothesis import given
from hypothesis import strategies as some
from waiting import received, until

from helpers import cloud, containers, ledger, machine
from helpers.cluster.api import Api
from helpers.containers import daemon

ACCOUNT = "123456789012"
REPOSITORY = f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository"
READ = ["BatchGetImage", "GetDownloadUrlForLayer"]
WRITE = "BatchCheckLayerAvailability InitiateLayerUpload UploadLayerPart CompleteLayerUpload"

NAMES = "aws_access_key_id", "aws_secret_access_key"

needs_docker = pytest.mark.skipif(not machine.docker_socket(), reason="needs the machine's Docker")


@pytest.fixture(scope="module")
def aws(shared_home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ENGINE", "machine" if machine.docker_socket() else "vm")
        yield cloud.start()


@pytest.fixture
def ecr(aws):
    return boto3.client("ecr")


@pytest.fixture(scope="module")
def docker(aws):
    return containers.engine()


@pytest.fixture
def repository(ecr, request):
    """An empty repository: its name and its URI."""
    name = f"r/{abs(hash(request.node.nodeid)) % 10**10}"
    uri = ecr.create_repository(repositoryName=name)["repository"]["repositoryUri"]
    return SimpleNamespace(name=name, uri=uri)


def build(name, content):
    """Make an image of one file."""
    good(
        f"cd $(mktemp -d) && echo {content} > file && "
        f"tar c file | docker import --change 'LABEL {containers.label()}' - {name}"
    )
    return good(f"docker inspect -f '{{{{.Id}}}}' {name}")


def login(uri, **keys):
    host = uri.split("/")[0]
    return good(
        f"aws ecr get-login-password | docker login --username AWS --password-stdin {host}", **keys
    )


def manifest(ecr, repository, what):
    """Ask the registry itself, as Docker does."""
    (given,) = ecr.get_authorization_token()["authorizationData"]
    host, _, name = repository.uri.partition("/")
    request = Request(f"http://{host}/v2/{name}/manifests/{what}")
    request.add_header("Authorization", f"Basic {given['authorizationToken']}")
    return urlopen(request)


def pushed(said):
    """The digest that docker push reports."""
    return re.search("digest: (sha256:[0-9a-f]{64})", said)[1]


def keys_of(name, *actions, resource="*"):
    """The variables of a new user who may do so much, and log in."""
    iam = boto3.client("iam")
    iam.create_user(UserName=name)
    statements = [
        {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
        {"Effect": "Allow", "Action": [f"ecr:{one}" for one in actions], "Resource": resource},
    ]
    document = json.dumps({"Version": "2012-10-17", "Statement": statements[: 1 + bool(actions)]})
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }


def ask(aws, path, password=None, method="GET", **more):
    """What the registry answers: HTTP status, error codes and headers."""
    headers = urllib3.make_headers(basic_auth=f"AWS:{password}") if password else {}
    got = urllib3.request(method, f"{aws.endpoint}/v2/{path}", headers=headers, **more)
    codes = [one["code"] for one in got.json()["errors"]] if got.status >= 400 else []
    return got.status, codes, got.headers


def password(client):
    (data,) = client.get_authorization_token()["authorizationData"]
    return base64.b64decode(data["authorizationToken"]).decode().removeprefix("AWS:"), data


# --- With Docker


@needs_docker
def test_an_image_goes_to_ecr_and_comes_back(ecr, docker, repository):
    image = f"{repository.uri}:v1"
    ours = build(image, "one")
    status, said = sh(f"docker push {image}")
    assert status == 1 and "no basic auth credentials" in said
    assert "Login Succeeded" in login(image)
    digest = pushed(good(f"docker push {image}"))
    (seen,) = ecr.describe_images(repositoryName=repository.name)["imageDetails"]
    assert (seen["imageDigest"], seen["imageTags"]) == (digest, ["v1"])
    assert abs(seen["imagePushedAt"].timestamp() - time.time()) < 60
    (got,) = ecr.batch_get_image(
        repositoryName=repository.name, imageIds=[{"imageDigest": digest}]
    )["images"]
    manifest = json.loads(got["imageManifest"])
    parts = [manifest["config"], *manifest["layers"]]
    assert seen["imageSizeInBytes"] == sum(part["size"] for part in parts)
    good(f"docker rmi {image}")
    good(f"docker pull {image}")
    assert good(f"docker inspect -f '{{{{.Id}}}}' {image}") == ours == manifest["config"]["digest"]
    found = good(f"docker inspect -f '{{{{.RepoDigests}}}}' {image}")
    assert found == f"[{repository.uri}@{digest}]"


@needs_docker
def test_layers_of_some_size_pass_through(docker, ecr, repository):
    image = f"{repository.uri}:big"
    label = containers.label()
    good(
        f"cd $(mktemp -d) && head -c 30M /dev/urandom > file && "
        f"tar c file | docker import --change 'LABEL {label}' - {image} && rm file"
    )
    login(image)
    good(f"docker push {image}")
    (seen,) = ecr.describe_images(repositoryName=repository.name)["imageDetails"]
    assert seen["imageSizeInBytes"] > 30 << 20
    good(f"docker rmi {image} && docker pull {image} && docker rmi {image}")


@needs_docker
def test_a_wrong_password_and_an_unknown_repository(docker, aws, repository):
    host = repository.uri.split("/")[0]
    status, said = sh(f"docker login -u AWS -p {'x' * 64} {host}")
    assert status == 1 and "401 Unauthorized" in said
    login(repository.uri)
    build(f"{host}/none:1", "one")
    status, said = sh(f"docker push {host}/none:1")
    text = f"The repository with name 'none' does not exist in the registry with id '{ACCOUNT}'"
    assert status == 1 and f"name unknown: {text}" in said
    status, said = sh(f"docker pull {repository.uri}:none")
    assert status == 1 and "manifest unknown: Requested image not found" in said


@needs_docker
def test_who_may_pull_may_not_push(docker, aws, repository):
    image, other = f"{repository.uri}:v1", f"{repository.uri}:v2"
    build(image, "one")
    build(other, "two")
    login(image)
    good(f"docker push {image}")
    login(image, **keys_of("reader", *READ, resource=f"{REPOSITORY}/{repository.name}"))
    good(f"docker pull {image}")
    status, said = sh(f"docker push {other}")
    assert (
        status == 1
        and (
            f"denied: User: arn:aws:iam::{ACCOUNT}:user/reader is not authorized to perform: "
            f"ecr:InitiateLayerUpload on resource: {REPOSITORY}/{repository.name} because no "
            "identity-based policy allows the ecr:InitiateLayerUpload action"
        )
        in said
    )
    login(image, **keys_of("nobody"))
    status, said = sh(f"docker pull {image}")
    assert status == 1 and "is not authorized to perform: ecr:BatchGetImage" in said
    login(image, **keys_of("writer", *WRITE.split()))
    status, said = sh(f"docker push {other}")
    assert status == 1 and "is not authorized to perform: ecr:PutImage" in said
    user = {"AWS": f"arn:aws:iam::{ACCOUNT}:user/writer"}
    one = {"Sid": "a", "Effect": "Allow", "Principal": user, "Action": "ecr:PutImage"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [one]})
    boto3.client("ecr").set_repository_policy(repositoryName=repository.name, policyText=document)
    good(f"docker push {other}")


@needs_docker
def test_a_tag_moves_unless_it_is_immutable(docker, ecr, repository):
    image = f"{repository.uri}:v1"
    login(image)
    digests = []
    for content in ("one", "two", ""):
        if content:  # else the same image is pushed once more
            build(image, content)
        digests.append(pushed(good(f"docker push {image}")))
    found = ecr.describe_images(repositoryName=repository.name)["imageDetails"]
    tags = {one["imageDigest"]: one.get("imageTags") for one in found}
    assert tags == {digests[0]: None} | dict.fromkeys(digests[1:], ["v1"])
    ecr.put_image_tag_mutability(repositoryName=repository.name, imageTagMutability="IMMUTABLE")
    build(image, "three")
    status, said = sh(f"docker push {image}")
    assert (
        status == 1
        and (
            f"tag invalid: The image tag 'v1' already exists in the '{repository.name}' repository "
            "and cannot be overwritten because the tag is immutable."
        )
        in said
    )
    good(f"docker tag {image} {repository.uri}:v2 && docker push {repository.uri}:v2")


@needs_docker
def test_an_image_gets_another_tag_by_the_api_and_is_deleted(docker, ecr, repository):
    image = f"{repository.uri}:v1"
    ours, _ = build(image, "one"), login(image)
    digest = pushed(good(f"docker push {image}"))
    where = {"repositoryName": repository.name}
    (found,) = ecr.batch_get_image(**where, imageIds=[{"imageTag": "v1"}])["images"]
    ecr.put_image(**where, imageManifest=found["imageManifest"], imageTag="stable")
    refused(
        "ImageAlreadyExistsException",
        ecr.put_image,
        **where,
        imageManifest=found["imageManifest"],
        imageTag="stable",
    )
    good(f"docker rmi {image} && docker pull {repository.uri}:stable")
    assert good(f"docker inspect -f '{{{{.Id}}}}' {repository.uri}:stable") == ours
    assert len(ecr.list_images(**where)["imageIds"]) == 2
    gone = ecr.batch_delete_image(**where, imageIds=[{"imageTag": "v1"}, {"imageTag": "none"}])
    assert gone["imageIds"] == [{"imageDigest": digest, "imageTag": "v1"}]
    assert gone["failures"][0]["failureCode"] == "ImageNotFound"
    assert "manifest unknown" in sh(f"docker pull {image}")[1]
    assert digest == manifest(ecr, repository, digest).headers["Docker-Content-Digest"]
    refused("RepositoryNotEmptyException", ecr.delete_repository, **where)
    ecr.batch_delete_image(**where, imageIds=[{"imageDigest": digest}])
    good(f"docker rmi {repository.uri}:stable")
    with pytest.raises(HTTPError, match="404"):  # Docker would find it among what it has
        manifest(ecr, repository, digest)
    ecr.delete_repository(**where)
    assert "name unknown" in sh(f"docker pull {image}")[1]


@needs_docker
def test_a_push_is_an_event(docker, aws, ecr, repository):
    events = boto3.client("events")
    queue = boto3.client("sqs").create_queue(QueueName="pushes")["QueueUrl"]
    arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:pushes"
    events.put_rule(Name="pushes", EventPattern=json.dumps({"source": ["aws.ecr"]}))
    events.put_targets(Rule="pushes", Targets=[{"Id": "q", "Arn": arn}])
    image = f"{repository.uri}:v1"
    build(image, "one")
    login(image)
    digest = pushed(good(f"docker push {image}"))
    (event,) = until(lambda: received(queue))
    assert event["detail-type"] == "ECR Image Action"
    assert event["detail"] == {
        "action-type": "PUSH",
        "result": "SUCCESS",
        "repository-name": repository.name,
        "image-digest": digest,
        "image-tag": "v1",
    }
    events.remove_targets(Rule="pushes", Ids=["q"])


@needs_docker
def test_a_login_is_kept_where_it_goes_with_the_lab(docker, repository, shared_home, monkeypatch):
    login(repository.uri)
    config = json.loads((shared_home / "docker/config.json").read_text())
    assert list(config["auths"]) == [repository.uri.split("/")[0]]
    entries = [one.facts["path"] for one in ledger.entries("files")]
    assert str(shared_home / "docker") in entries


@needs_docker
def test_plugins_of_the_learner_are_found(home, tmp_path, monkeypatch):
    plugin = tmp_path / ".docker/cli-plugins/docker-hello"
    plugin.parent.mkdir(parents=True)
    about = '{"SchemaVersion":"0.1.0","Vendor":"v","Version":"1","ShortDescription":"says hello"}'
    plugin.write_text(f"#!/bin/sh\necho '{about}'\n")
    plugin.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    containers.engine()
    assert "says hello" in good("docker --help")


# --- Without


def test_the_engine_in_a_vm_reaches_this_machine_elsewhere(monkeypatch):
    monkeypatch.setenv("LAB_ENGINE", "vm")
    assert daemon.host() == "10.0.2.2"


def test_a_password_stands_for_its_key_in_its_region(aws, ecr):
    word, data = password(ecr)
    assert abs(data["expiresAt"].timestamp() - time.time() - 12 * 3600) < 60
    host = ecr.create_repository(repositoryName="here")["repository"]["repositoryUri"]
    assert data["proxyEndpoint"] == f"http://{host.split('/')[0]}"
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in word
    assert ask(aws, "here/tags/list", word)[:2] == (200, [])
    other = boto3.client("ecr", region_name="eu-west-1")
    assert ask(aws, "here/tags/list", password(other)[0])[:2] == (404, ["NAME_UNKNOWN"])
    for wrong in (None, "x", word[:-1]):
        status, codes, headers = ask(aws, "", wrong)
        assert (status, codes) == (401, ["UNAUTHORIZED"])
        assert headers["WWW-Authenticate"].startswith("Basic realm=")
        assert headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_a_password_is_worth_nothing_without_its_key(aws, ecr):
    keys = keys_of("leaver", "*")
    client = boto3.client(
        "ecr",
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )
    word, _ = password(client)
    assert ask(aws, "", word)[0] == 200
    boto3.client("iam").delete_access_key(UserName="leaver", AccessKeyId=keys["AWS_ACCESS_KEY_ID"])
    assert ask(aws, "", word)[:2] == (403, ["DENIED"])
    user = boto3.client("iam").create_access_key(UserName="leaver")["AccessKey"]
    boto3.client("iam").delete_user_policy(UserName="leaver", PolicyName="p")
    client = boto3.client(
        "ecr",
        aws_access_key_id=user["AccessKeyId"],
        aws_secret_access_key=user["SecretAccessKey"],
    )
    text = refused("AccessDeniedException", client.get_authorization_token)
    assert "ecr:GetAuthorizationToken on resource: *" in text


def push(aws, word, name, tag, content):
    """Push an image of one layer without Docker; return its digest."""
    parts = []
    for blob in (b"{}", content):
        digest = "sha256:" + hashlib.sha256(blob).hexdigest()
        status, _, headers = ask(aws, f"{name}/blobs/uploads/", word, "POST")
        assert status == 202 and headers["Location"].startswith(f"{aws.endpoint}/v2/{name}/")
        path = headers["Location"].removeprefix(f"{aws.endpoint}/v2/")
        parts_of = (blob[i : i + 3] for i in range(0, len(blob), 3))
        status, _, headers = ask(aws, path, word, "PATCH", body=parts_of)  # in chunks
        assert status == 202
        path = headers["Location"].removeprefix(f"{aws.endpoint}/v2/")
        assert ask(aws, f"{path}&digest={digest}", word, "PUT")[0] == 201
        parts.append({"mediaType": "x", "size": len(blob), "digest": digest})
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    parts[0]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    parts[1]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": parts[0], "layers": parts[1:]}
    headers = urllib3.make_headers(basic_auth=f"AWS:{word}") | {"Content-Type": kind}
    url = f"{aws.endpoint}/v2/{name}/manifests/{tag}"
    got = urllib3.request("PUT", url, body=json.dumps(manifest), headers=headers)
    assert got.status == 201, got.data
    return got.headers["Docker-Content-Digest"]


def test_layers_and_manifests_without_docker(aws, ecr, repository):
    word, _ = password(ecr)
    digest = push(aws, word, repository.name, "v1", b"a layer")
    status, _, headers = ask(aws, f"{repository.name}/manifests/v1", word, "HEAD")
    assert (status, headers["Docker-Content-Digest"]) == (200, digest)
    text = '{"schemaVersion": 2}'
    kind = "application/vnd.oci.image.manifest.v1+json"
    wrong = {"repositoryName": repository.name, "imageManifest": text, "imageTag": "x"}
    refused(
        "ReferencedImagesNotFoundException", ecr.put_image, **wrong, imageManifestMediaType=kind
    )
    assert ask(aws, f"{repository.name}/manifests/v1", word, "DELETE")[:2] == (405, ["UNSUPPORTED"])


def test_a_preview_says_what_a_lifecycle_policy_would_delete(aws, ecr, repository):
    word, _ = password(ecr)
    digests = {
        tag: push(aws, word, repository.name, tag, tag.encode()) for tag in "a1 a2 b1".split()
    }
    lost = digests["a1"]
    push(aws, word, repository.name, "a1", b"newer")
    rules = [
        ("untagged", {"countType": "sinceImagePushed", "countUnit": "days", "countNumber": 9}),
        ("tagged", {"tagPrefixList": ["a"], "countType": "imageCountMoreThan", "countNumber": 1}),
        ("any", {"countType": "imageCountMoreThan", "countNumber": 2}),
    ]
    text = json.dumps(
        {
            "rules": [
                {
                    "rulePriority": 3 - number,
                    "selection": {"tagStatus": status} | how,
                    "action": {"type": "expire"},
                }
                for number, (status, how) in enumerate(reversed(rules))
            ]
        }
    )
    where = {"repositoryName": repository.name}
    refused("LifecyclePolicyPreviewNotFoundException", ecr.get_lifecycle_policy_preview, **where)
    ecr.put_lifecycle_policy(**where, lifecyclePolicyText=text)
    assert ecr.start_lifecycle_policy_preview(**where)["status"] == "IN_PROGRESS"
    ecr.get_waiter("lifecycle_policy_preview_complete").wait(**where)
    found = ecr.get_lifecycle_policy_preview(**where)
    (gone,) = found["previewResults"]
    assert gone["imageDigest"] == digests["a2"] and gone["appliedRulePriority"] == 2
    assert found["summary"]["expiringImageTotalCount"] == 1
    text = json.dumps(
        {
            "rules": [
                {
                    "rulePriority": 1,
                    "selection": {
                        "tagStatus": "untagged",
                        "countType": "imageCountMoreThan",
                        "countNumber": 1,
                    },
                    "action": {"type": "expire"},
                }
            ]
        }
    )
    push(aws, word, repository.name, "b1", b"newer")
    ecr.start_lifecycle_policy_preview(**where, lifecyclePolicyText=text)
    (gone,) = ecr.get_lifecycle_policy_preview(**where)["previewResults"]
    assert gone["imageDigest"] == lost and gone["imageTags"] == []


def test_what_nothing_is_behind_is_refused(aws, ecr, repository):
    where = {"repositoryName": repository.name}
    refused("NotImplemented", ecr.start_image_scan, **where, imageId={"imageTag": "v1"})
    refused("NotImplemented", ecr.initiate_layer_upload, **where)


PARTS = "mine theirs .. . %2e%2e %2f blobs uploads manifests tags list v1 ?a ".split(" ")


@pytest.fixture(scope="module")
def guest(aws):
    """The password of somebody who may do everything, but in one of two repositories."""
    ecr = boto3.client("ecr")
    for name in ("mine", "theirs"):
        ecr.create_repository(repositoryName=name)
        push(aws, password(ecr)[0], name, "v1", name.encode())
    keys = keys_of("guest", "*", resource=f"{REPOSITORY}/mine").values()
    return password(boto3.client("ecr", **dict(zip(NAMES, keys, strict=True))))[0]


@given(parts=some.lists(some.sampled_from(PARTS), max_size=8))
def test_no_path_leads_to_what_is_forbidden(aws, guest, parts):
    link = http.client.HTTPConnection(aws.endpoint.removeprefix("http://"))
    link.request(
        "GET", "/v2/" + "/".join(parts), headers=urllib3.make_headers(basic_auth=f"AWS:{guest}")
    )
    got = link.getresponse()
    said = got.read().decode()
    assert got.status in (403, 404, 405) or said == "{}" or parts[0] == "mine", said
    assert "theirs" not in said or "DENIED" in said or "UNSUPPORTED" in said


def test_nothing_is_left_of_a_stack_with_images(aws, ecr):
    body = {
        "Resources": {
            "R": {
                "Type": "AWS::ECR::Repository",
                "Properties": {"RepositoryName": "stacked", "EmptyOnDelete": True},
            }
        },
        "Outputs": {"Uri": {"Value": {"Fn::GetAtt": ["R", "RepositoryUri"]}}},
    }
    cf = boto3.client("cloudformation")
    cf.create_stack(StackName="images", TemplateBody=json.dumps(body))
    cf.get_waiter("stack_create_complete").wait(StackName="images")
    (output,) = cf.describe_stacks(StackName="images")["Stacks"][0]["Outputs"]
    assert output["OutputValue"].endswith("/stacked")
    push(aws, password(ecr)[0], "stacked", "v1", b"a layer")
    cf.delete_stack(StackName="images")
    cf.get_waiter("stack_delete_complete").wait(StackName="images")
    refused("RepositoryNotFoundException", ecr.describe_images, repositoryName="stacked")


# --- Nodes that pull


@pytest.fixture(scope="module")
def node(aws):
    """The API of a cluster with one node, and the name of the node's role."""
    iam, eks = boto3.client("iam"), boto3.client("eks")
    arns = {}
    for name in ("eks", "ec2"):
        one = {"Effect": "Allow", "Action": "sts:AssumeRole"}
        one["Principal"] = {"Service": f"{name}.amazonaws.com"}
        trust = json.dumps({"Version": "2012-10-17", "Statement": [one]})
        role = iam.create_role(RoleName=f"pulls-{name}", AssumeRolePolicyDocument=trust)
        arns[name] = role["Role"]["Arn"]
    found = boto3.client("ec2").describe_subnets()["Subnets"]
    subnets = [one["SubnetId"] for one in sorted(found, key=lambda one: one["AvailabilityZone"])]
    place = {"subnetIds": subnets[:2]}
    eks.create_cluster(name="pulls", roleArn=arns["eks"], resourcesVpcConfig=place)
    eks.get_waiter("cluster_active").wait(name="pulls")
    group = {"clusterName": "pulls", "nodegroupName": "one"}
    eks.create_nodegroup(
        **group,
        nodeRole=arns["ec2"],
        subnets=subnets[:1],
        scalingConfig={"minSize": 1, "maxSize": 1, "desiredSize": 1},
    )
    eks.get_waiter("nodegroup_active").wait(**group)
    yield Api(ledger.home() / "clusters/eks-pulls/kubeconfig"), "pulls-ec2"
    eks.delete_nodegroup(**group)
    eks.get_waiter("nodegroup_deleted").wait(**group)
    eks.delete_cluster(name="pulls")
    eks.get_waiter("cluster_deleted").wait(name="pulls")


def pod(api, name, image, policy, **spec):
    """Run a pod; return a function that says why it waits, if it does, or its phase."""
    container = {"name": "main", "image": image, "imagePullPolicy": policy}
    body = {"containers": [container | {"command": ["sleep", "60"]}], **spec}
    body |= {"terminationGracePeriodSeconds": 0}
    pods = "/api/v1/namespaces/default/pods"
    api.create(pods, {"metadata": {"name": name}, "spec": body})

    def state():
        status = api.get(f"{pods}/{name}")["status"]
        for one in status.get("containerStatuses", []):
            if waiting := one["state"].get("waiting"):
                return f"{waiting['reason']}: {waiting.get('message')}"
        return status["phase"]

    return state


def runs(image):
    """Make an image that something can run in, and return its name."""
    containers.image("debian:stable-slim")
    good(f"echo FROM debian:stable-slim | docker build -q --label $LAB_LABEL -t {image} -")
    return image


def said(api, name):
    """What the events about a pod say."""
    events = api.get("/api/v1/namespaces/default/events")["items"]
    return [one["message"] for one in events if one["involvedObject"]["name"] == name]


@pytest.mark.slow
@needs_docker
def test_a_node_pulls_as_its_role_may(docker, aws, repository, node):
    api, role = node
    image = runs(f"{repository.uri}:v1")
    login(image)
    digest = pushed(good(f"docker push {image}"))
    until(lambda: api.get("/api/v1/namespaces/default/serviceaccounts")["items"])
    pod(api, "denied", image, "Always")
    until(lambda: any("no basic auth credentials" in one for one in said(api, "denied")))
    iam = boto3.client("iam")
    statement = {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName=role, PolicyName="token", PolicyDocument=document)
    waits = pod(api, "refused", image, "Always")
    until(lambda: any("ecr:BatchGetImage" in one for one in said(api, "refused")))
    assert waits().startswith(("ErrImagePull", "ImagePullBackOff"))
    policy = "arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryPullOnly"
    iam.attach_role_policy(RoleName=role, PolicyArn=policy)
    phase = pod(api, "allowed", image, "Always")
    until(lambda: phase() == "Running")
    iam.detach_role_policy(RoleName=role, PolicyArn=policy)
    phase = pod(api, "present", f"{repository.uri}@{digest}", "IfNotPresent")
    until(lambda: phase() == "Running")
    assert not any("Pulling" in one for one in said(api, "present"))


@pytest.mark.slow
@needs_docker
def test_a_pod_brings_a_login_of_its_own(docker, aws, ecr, repository, node):
    api, _ = node
    image = runs(f"{repository.uri}:v1")
    login(image)
    good(f"docker push {image}")
    word, _ = password(ecr)
    config = {"auths": {image.split("/")[0]: {"username": "AWS", "password": word}}}
    data = {".dockerconfigjson": base64.b64encode(json.dumps(config).encode()).decode()}
    secret = {"metadata": {"name": "ecr"}, "type": "kubernetes.io/dockerconfigjson", "data": data}
    api.create("/api/v1/namespaces/default/secrets", secret)
    phase = pod(api, "guest", image, "Always", imagePullSecrets=[{"name": "ecr"}])
    until(lambda: phase() == "Running")
