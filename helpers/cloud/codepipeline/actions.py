"""What actions do: one function for each provider. All is done with the keys of a role.

A function gets its job and the API in the name of the pipeline's role (or the action's own).
Not here: CodeDeploy, ECS, GitHub, Jenkins and all others that ``PROVIDERS`` does not list.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from helpers.cloud import permissions
from helpers.cloud.codepipeline import deploy, kubernetes, sources
from helpers.cloud.codepipeline.job import Failed, Job
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import sts
from helpers.cloud.stacks.api import Caller

APPROVAL_SECONDS = 7 * 24 * 3600  # then AWS lets an approval fail
INVOKE_SECONDS = 20 * 60
IMAGE = """version: 0.2
phases:
  build:
    commands:
      - aws ecr get-login-password | docker login --username AWS --password-stdin "{registry}"
      - file="{file}"; if [ -d "$file" ]; then file="${{file%/}}/Dockerfile"; fi
      - docker build --file "$file" {tags} "$(dirname "$file")"
      - {pushes}
"""


@dataclass
class Provider:
    """What a kind of action wants."""

    run: Callable[[Job, Caller], None]
    settings: str  # the keys of its configuration; those that are required end in *
    inputs: tuple[int, int] = (0, 0)  # artifacts, at least and at most
    outputs: tuple[int, int] = (0, 0)
    v2: bool = False  # only in pipelines of type V2


# --- Builds


def codebuild(job: Job, call: Caller) -> None:
    """Have a project of CodeBuild build the input."""
    from helpers.cloud.services import codebuild

    settings, project = job.configuration, job.configuration["ProjectName"]
    arn = f"arn:aws:codebuild:{call.region}:{ACCOUNT}:project/{project}"
    for action in ("codebuild:StartBuild", "codebuild:BatchGetBuilds"):
        permissions.require(call.credentials.access_key, action, arn)
    build = codebuild.start(
        call.region,
        project,
        inputs=job.inputs,
        primary=settings.get("PrimarySource") or next(iter(job.inputs)),
        outputs=job.outputs,
        variables=json.loads(settings.get("EnvironmentVariables") or "[]"),
        initiator=f"codepipeline/{job.pipeline.name}",
        version=next((r["revisionId"] for r in job.execution.revisions.values()), ""),
    )
    _built(job, build)
    exported = build.facts.get("exportedEnvironmentVariables", [])
    job.variables = {one["name"]: one["value"] for one in exported}


def image(job: Job, call: Caller) -> None:
    """Build an image from a Dockerfile and push it to ECR, as the pipeline's role."""
    from helpers.cloud.services import codebuild

    settings, name = job.configuration, job.configuration["ECRRepositoryName"]
    if settings.get("RegistryType", "private") != "private":
        raise Failed("The local cloud has private registries only.", "ConfigurationError")
    found = call("ecr", "DescribeRepositories", {"repositoryNames": [name]})
    uri = found["repositories"][0]["repositoryUri"]
    tags = [tag.strip() for tag in settings.get("ImageTags", "latest").split(",")]
    spec = IMAGE.format(
        registry=uri.split("/")[0],
        file=settings.get("DockerFilePath") or "Dockerfile",
        tags=" ".join(f"--tag {uri}:{tag}" for tag in tags),
        pushes=" && ".join(f"docker push {uri}:{tag}" for tag in tags),
    )
    build = codebuild.start_hidden(call.region, job.role, spec, job.inputs, job.pipeline.name)
    _built(job, build)
    wanted = {"repositoryName": name, "imageIds": [{"imageTag": tags[0]}]}
    digest = call("ecr", "BatchGetImage", wanted)["images"][0]["imageId"]["imageDigest"]
    job.variables = {"ECRImageDigestId": digest, "ECRRepositoryName": name}


def _built(job: Job, build) -> None:
    """Wait for a build."""
    job.cancel, facts = build.stop, build.facts
    job.external = {"externalExecutionId": facts["id"]}
    place = f"https://{job.pipeline.region}.console.aws.amazon.com/codebuild/home"
    where = f"?region={job.pipeline.region}#/builds/{facts['id']}/view/new"
    job.external["externalExecutionUrl"] = place + where
    build.done.wait()
    if build.facts["buildStatus"] != "SUCCEEDED":
        text = f"Build terminated with state: {build.facts['buildStatus']}"
        for phase in build.facts.get("phases", []):
            for why in phase.get("contexts") or [] if phase.get("phaseStatus") == "FAILED" else []:
                code, message = why.get("statusCode"), why.get("message")
                text += f". Phase: {phase['phaseType']}, Code: {code}, Message: {message}"
        raise Failed(text)


# --- Approvals and functions


def approval(job: Job, call: Caller) -> None:
    """Wait until somebody approves, or rejects."""
    job.token = str(uuid.uuid4())
    if topic := job.configuration.get("NotificationArn"):
        approve = {"pipelineName": job.pipeline.name, "stageName": job.stage}
        approve |= {"actionName": job.name, "token": job.token, **job.configuration}
        message = {"region": call.region, "approval": approve}
        call("sns", "Publish", {"TopicArn": topic, "Message": json.dumps(message)})
    if not job.answered.wait(job.seconds(APPROVAL_SECONDS)):
        raise Failed("The approval has expired.")
    said = job.answer.get("summary", "")
    job.external = {"externalExecutionSummary": said}
    if job.answer.get("status") == "Rejected":
        raise Failed(f"Rejected by {job.by}" + (f": {said}" if said else ""))


def function(job: Job, call: Caller) -> None:
    """Call a function of Lambda, which says itself whether it has succeeded."""
    names = ("accessKeyId", "secretAccessKey", "sessionToken")
    keys = dict(zip(names, sts.assume(job.role, "codepipeline"), strict=True))
    data = {
        "actionConfiguration": {"configuration": job.configuration},
        "inputArtifacts": [_located(*one) for one in job.inputs.items()],
        "outputArtifacts": [_located(*one) for one in job.outputs.items()],
        "artifactCredentials": keys,
    }
    event = {"CodePipeline.job": {"id": job.id, "accountId": ACCOUNT, "data": data}}
    wanted = {"FunctionName": job.configuration["FunctionName"], "InvocationType": "Event"}
    call("lambda", "Invoke", wanted | {"Payload": json.dumps(event)})
    if not job.answered.wait(job.seconds(INVOKE_SECONDS)):
        raise Failed("The AWS Lambda function failed to return a result before the timeout.")
    if failure := job.answer.get("failureDetails"):
        raise Failed(failure["message"], failure["type"])
    job.variables = job.answer.get("outputVariables") or {}
    details = job.answer.get("executionDetails") or {}
    job.external = {"externalExecutionSummary": details.get("summary", "")}


def _located(name: str, place: tuple[str, str]) -> dict:
    where = {"bucketName": place[0], "objectKey": place[1]}
    return {"name": name, "revision": None, "location": {"type": "S3", "s3Location": where}}


POLL = "PollForSourceChanges"
STACK = (
    "ActionMode* StackName* ChangeSetName TemplatePath TemplateConfiguration RoleArn Capabilities "
    "ParameterOverrides OutputFileName"
)
CHART = "HelmReleaseName HelmChartLocation HelmValuesFiles"
CLUSTER = f"ClusterName* ManifestFiles Namespace {CHART}"
REPOSITORY = f"RepositoryName* BranchName* {POLL} OutputArtifactFormat"
PROJECT = "ProjectName* PrimarySource EnvironmentVariables BatchEnabled CombineArtifacts"
IMAGES = "ECRRepositoryName* DockerFilePath ImageTags RegistryType"
OBJECT = f"S3Bucket* S3ObjectKey* {POLL} AllowOverrideForS3ObjectKey"
ASKED = "CustomData NotificationArn ExternalEntityLink"
PROVIDERS: dict[tuple[str, str], Provider] = {
    ("Source", "S3"): Provider(sources.s3, OBJECT, outputs=(1, 1)),
    ("Source", "CodeCommit"): Provider(sources.codecommit, REPOSITORY, outputs=(1, 1)),
    ("Build", "CodeBuild"): Provider(codebuild, PROJECT, (1, 5), (0, 5)),
    ("Test", "CodeBuild"): Provider(codebuild, PROJECT, (1, 5), (0, 5)),
    ("Build", "ECRBuildAndPublish"): Provider(image, IMAGES, (1, 1), v2=True),
    ("Deploy", "EKS"): Provider(kubernetes.deploy, CLUSTER, (1, 1), v2=True),
    ("Deploy", "CloudFormation"): Provider(deploy.cloudformation, STACK, (0, 10), (0, 1)),
    ("Deploy", "S3"): Provider(deploy.s3, "BucketName* Extract* ObjectKey CacheControl", (1, 1)),
    ("Approval", "Manual"): Provider(approval, ASKED),
    ("Invoke", "Lambda"): Provider(function, "FunctionName* UserParameters", (0, 5), (0, 5)),
}


def find(kind: dict[str, str]) -> Provider | None:
    """Return the provider of an action's type, or None if the local cloud has none."""
    if kind.get("owner") != "AWS" or kind.get("version") != "1":
        return None
    return PROVIDERS.get((kind.get("category"), kind.get("provider")))
