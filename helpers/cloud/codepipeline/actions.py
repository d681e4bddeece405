"""What actions do: one function for each provider. All is done with the keys of a role.

A function gets its job and the API in the name of the pipeline's role (or the action's own).
Not here: CodeDeploy, ECS, GitHub, Jenkins and all others that ``PROVIDERS`` does not list.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from botocore.exceptions import ClientError

from helpers.cloud import permissions
from helpers.cloud.codepipeline import deploy, kubernetes
from helpers.cloud.codepipeline.execution import Failed, Job
from helpers.cloud.codepipeline.files import store
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


# --- Sources


def s3_revision(settings: dict, call: Caller) -> str:
    """Return the version id of the object that is the source."""
    where = {"Bucket": settings["S3Bucket"], "Key": settings["S3ObjectKey"]}
    return call("s3", "HeadObject", where).get("VersionId", "")


def s3_source(job: Job, call: Caller) -> None:
    """Take an object of a bucket that keeps versions."""
    bucket, key = job.configuration["S3Bucket"], job.configuration["S3ObjectKey"]
    try:
        if call("s3", "GetBucketVersioning", {"Bucket": bucket}).get("Status") != "Enabled":
            text = f"The S3 bucket {bucket} must have versioning enabled to be a source."
            raise Failed(text, "ConfigurationError")
        wanted = {"VersionId": job.wanted} if job.wanted else {}
        found = call("s3", "GetObject", {"Bucket": bucket, "Key": key, **wanted})
    except ClientError as problem:
        raise _unreadable(problem, f"S3 object {key} in the bucket {bucket}") from None
    revision = found["VersionId"]
    job.pipeline.seen[job.name] = revision
    store(job, call, found["Body"].read())
    job.variables = {"BucketName": bucket, "ObjectKey": key, "VersionId": revision}
    job.variables["ETag"] = found["ETag"].strip('"')
    job.revised(revision, f"Amazon S3 version id: {revision}")


def codecommit_revision(settings: dict, call: Caller) -> str:
    """Return the id of the last commit of the branch that is the source."""
    where = {"repositoryName": settings["RepositoryName"], "branchName": settings["BranchName"]}
    return call("codecommit", "GetBranch", where)["branch"]["commitId"]


def codecommit_source(job: Job, call: Caller) -> None:
    """Take the last commit of a branch, as a ZIP file."""
    from helpers.cloud.services import codecommit

    name, branch = job.configuration["RepositoryName"], job.configuration["BranchName"]
    try:
        revision = job.wanted or codecommit_revision(job.configuration, call)
        commit = {"repositoryName": name, "commitId": revision}
        about = call("codecommit", "GetCommit", commit)["commit"]
    except ClientError as problem:
        raise _unreadable(
            problem, f"branch {branch} of the AWS CodeCommit repository {name}"
        ) from None
    arn = f"arn:aws:codecommit:{call.region}:{ACCOUNT}:{name}"
    permissions.require(call.credentials.access_key, "codecommit:UploadArchive", arn)
    job.pipeline.seen[job.name] = revision
    store(job, call, codecommit.archive(call.region, name, revision))
    job.variables = {"RepositoryName": name, "BranchName": branch, "CommitId": revision}
    job.variables |= {"CommitMessage": about["message"], "AuthorDate": about["author"]["date"]}
    job.variables["CommitterDate"] = about["committer"]["date"]
    job.revised(revision, about["message"])


def _unreadable(problem: ClientError, what: str) -> Exception:
    """Return why a source cannot be read, in CodePipeline's words where it has some."""
    code = problem.response["Error"]["Code"]
    if code in ("NoSuchKey", "NoSuchBucket") or "DoesNotExist" in code or "NotFound" in code:
        text = f"The action failed because the source could not be found: {what} does not exist."
        return Failed(text, "ConfigurationError")
    if "AccessDenied" not in code:
        return problem
    said = problem.response["Error"].get("Message", "")
    text = (
        "The service role or action role doesn't have the permissions required to access the "
        f"{what}. Update the IAM role permissions, and then try again. Error: {code}: {said}"
    )
    return Failed(text, "PermissionError")


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
        inputs={name: job.execution.artifacts[name] for name in job.inputs},
        primary=settings.get("PrimarySource") or job.inputs[0],
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
    build = codebuild.start_hidden(
        call.region,
        job.role,
        spec,
        {one: job.execution.artifacts[one] for one in job.inputs},
        job.inputs[0],
        [],
        f"codepipeline/{job.pipeline.name}",
    )
    _built(job, build)
    wanted = {"repositoryName": name, "imageIds": [{"imageTag": tags[0]}]}
    digest = call("ecr", "DescribeImages", wanted)["imageDetails"][0]["imageDigest"]
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
    places = {name: job.execution.artifacts[name] for name in job.inputs}
    data = {
        "actionConfiguration": {"configuration": job.configuration},
        "inputArtifacts": [_located(*one) for one in places.items()],
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
    ("Source", "S3"): Provider(s3_source, OBJECT, outputs=(1, 1)),
    ("Source", "CodeCommit"): Provider(codecommit_source, REPOSITORY, outputs=(1, 1)),
    ("Build", "CodeBuild"): Provider(codebuild, PROJECT, (1, 5), (0, 5)),
    ("Test", "CodeBuild"): Provider(codebuild, PROJECT, (1, 5), (0, 5)),
    ("Build", "ECRBuildAndPublish"): Provider(image, IMAGES, (1, 1), v2=True),
    ("Deploy", "EKS"): Provider(kubernetes.deploy, CLUSTER, (1, 1), v2=True),
    ("Deploy", "CloudFormation"): Provider(deploy.cloudformation, STACK, (0, 10), (0, 1)),
    ("Deploy", "S3"): Provider(deploy.s3, "BucketName* Extract* ObjectKey CacheControl", (1, 1)),
    ("Approval", "Manual"): Provider(approval, ASKED),
    ("Invoke", "Lambda"): Provider(function, "FunctionName* UserParameters", (0, 5), (0, 5)),
}
# What tells that a source has changed, for pipelines that look by themselves.
REVISIONS = {"S3": s3_revision, "CodeCommit": codecommit_revision}


def find(kind: dict[str, str]) -> Provider | None:
    """Return the provider of an action's type, or None if the local cloud has none."""
    if kind.get("owner") != "AWS" or kind.get("version") != "1":
        return None
    return PROVIDERS.get((kind.get("category"), kind.get("provider")))
