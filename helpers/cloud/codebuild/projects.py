"""Projects: what they may look like, and what a build takes over from its project."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from functools import partial

from moto.core.utils import get_service_model, utcnow

from helpers.cloud.calls import Refusal
from helpers.cloud.codebuild import sources
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import sts

invalid = partial(Refusal, "InvalidInputException")  # takes the message
IMAGE = "aws/codebuild/amazonlinux-x86_64-standard:5.0"
SMALL = {"type": "LINUX_CONTAINER", "image": IMAGE, "computeType": "BUILD_GENERAL1_SMALL"}
NOT_HERE = {
    "vpcConfig": "builds in a VPC",
    "fileSystemLocations": "file systems of builds",
    "buildBatchConfig": "batch builds",
    "autoRetryLimit": "retries of builds by themselves",
}
# What start-build may replace: the parameter, and the part of the build.
OVERRIDES = {
    "sourceTypeOverride": ("source", "type"),
    "sourceLocationOverride": ("source", "location"),
    "buildspecOverride": ("source", "buildspec"),
    "imageOverride": ("environment", "image"),
    "computeTypeOverride": ("environment", "computeType"),
    "environmentTypeOverride": ("environment", "type"),
    "privilegedModeOverride": ("environment", "privilegedMode"),
    "imagePullCredentialsTypeOverride": ("environment", "imagePullCredentialsType"),
}
WHOLE = {
    "timeoutInMinutesOverride": "timeoutInMinutes",
    "queuedTimeoutInMinutesOverride": "queuedTimeoutInMinutes",
    "serviceRoleOverride": "serviceRole",
    "logsConfigOverride": "logsConfig",
    "artifactsOverride": "artifacts",
    "secondaryArtifactsOverride": "secondaryArtifacts",
    "secondarySourcesOverride": "secondarySources",
    "sourceVersion": "sourceVersion",
}
OTHERS = "projectName environmentVariablesOverride caller initiator idempotencyToken given".split()
CURATED = [
    {
        "platform": platform,
        "languages": [
            {"language": "BASE", "images": [{"name": name, "description": "a small stand-in"}]}
        ],
    }
    for platform, name in (("AMAZON_LINUX_2023", IMAGE), ("UBUNTU", "aws/codebuild/standard:7.0"))
]


def new(asked: dict, region: str, service: str = "codebuild") -> dict:
    """Return a project as it was asked for, whose role trusts a service.

    Raises:
        NotImplementedError: it needs what is not here.
        Refusal: AWS does not take it.
    """
    for name, what in NOT_HERE.items():
        if asked.get(name):
            raise NotImplementedError(what)
    name, now = asked["name"], utcnow()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{1,149}", name):
        raise invalid("Only alphanumeric characters, dash, and underscore are supported")
    project = {
        "name": name,
        "arn": f"arn:aws:codebuild:{region}:{ACCOUNT}:project/{name}",
        "encryptionKey": f"arn:aws:kms:{region}:{ACCOUNT}:alias/aws/s3",
        "timeoutInMinutes": 60,
        "queuedTimeoutInMinutes": 480,
        "cache": {"type": "NO_CACHE"},
        "badge": {"badgeEnabled": False},
        "projectVisibility": "PRIVATE",
        "tags": [],
        "secondarySources": [],
        "secondaryArtifacts": [],
    }
    known = get_service_model("codebuild").shape_for("Project").members
    project |= {name: value for name, value in asked.items() if name in known and value is not None}
    project["environment"] = {"environmentVariables": [], "privilegedMode": False} | project[
        "environment"
    ]
    _check(project)
    sts.assume(project["serviceRole"], service)
    return project | {"created": now, "lastModified": now}


def build(project: dict, asked: dict) -> dict:
    """Return the facts of a new build of a project: what start-build asks for goes first.

    Raises:
        NotImplementedError, Refusal: as ``new`` does.
    """
    replaced = {part: dict(project[part]) for part in ("source", "environment")}
    for name, value in asked.items():
        if name in OVERRIDES:
            part, field = OVERRIDES[name]
            replaced[part][field] = value
        elif name in WHOLE:
            replaced[WHOLE[name]] = value
        elif name not in OTHERS:
            raise NotImplementedError(f"start-build with {name}")
    variables = {
        one["name"]: one
        for given in (
            project["environment"]["environmentVariables"],
            asked.get("environmentVariablesOverride") or [],
        )
        for one in given
    }
    replaced["environment"]["environmentVariables"] = list(variables.values())
    made = project | replaced
    _check(made)
    one, region = str(uuid.uuid4()), project["arn"].split(":")[3]
    taken = (
        "source secondarySources environment cache serviceRole timeoutInMinutes "
        "queuedTimeoutInMinutes encryptionKey sourceVersion"
    )
    return {name: made[name] for name in taken.split() if name in made} | {
        "id": f"{made['name']}:{one}",
        "arn": f"arn:aws:codebuild:{region}:{ACCOUNT}:build/{made['name']}:{one}",
        "projectName": made["name"],
        "initiator": asked["initiator"],
        "startTime": utcnow(),
        "currentPhase": "SUBMITTED",
        "buildStatus": "IN_PROGRESS",
        "buildComplete": False,
        "phases": [],
        "artifacts": {"location": ""},
        "secondaryArtifacts": [],
        "logs": _logs(made, one, region),
        "targets": [made["artifacts"] | {"primary": True}, *made["secondaryArtifacts"]],
    }


def _logs(project: dict, build_id: str, region: str) -> dict:
    config = project.get("logsConfig") or {}
    cloudwatch = config.get("cloudWatchLogs") or {"status": "ENABLED"}
    told: dict = {"cloudWatchLogs": cloudwatch, "s3Logs": {"status": "DISABLED"}}
    if cloudwatch["status"] == "DISABLED":
        return told
    group = cloudwatch.get("groupName") or f"/aws/codebuild/{project['name']}"
    stream = "/".join(filter(None, (cloudwatch.get("streamName"), build_id)))
    arn = f"arn:aws:logs:{region}:{ACCOUNT}:log-group:{group}:log-stream:{stream}"
    return told | {"groupName": group, "streamName": stream, "cloudWatchLogsArn": arn}


def _check(project: dict) -> None:
    source, artifacts, environment = (
        project[name] for name in ("source", "artifacts", "environment")
    )
    shapes = get_service_model("codebuild").shape_for
    for value, shape in (
        (source["type"], "SourceType"),
        (artifacts["type"], "ArtifactsType"),
        (environment["type"], "EnvironmentType"),
        (environment["computeType"], "ComputeType"),
    ):
        if value not in shapes(shape).enum:
            raise invalid(f"Invalid type provided: {value}")
    for one in (source, *project["secondarySources"]):
        if one["type"] not in sources.HERE:
            text = f"sources of type {one['type']}, which are on a network that it does not use"
            raise NotImplementedError(text)
        if one["type"] in ("S3", "CODECOMMIT") and not one.get("location"):
            raise invalid("Project source location is required")
    if source["type"] == "NO_SOURCE" and not re.search(r"[\n{]", source.get("buildspec") or ""):
        raise invalid("A valid inline buildspec is required for source type NO_SOURCE")
    if artifacts["type"] == "S3" and not artifacts.get("location"):
        raise invalid("Project artifacts location is required")
    if artifacts["type"] == "NO_ARTIFACTS" and artifacts.get("location"):
        text = "Invalid artifacts: artifact type NO_ARTIFACTS should have null location"
        raise invalid(text)
    if (artifacts["type"] == "CODEPIPELINE") != (source["type"] == "CODEPIPELINE"):
        raise invalid("Source and artifacts must both be of type CODEPIPELINE, or neither")
    if not environment["type"].startswith(("LINUX_CONTAINER", "ARM_CONTAINER")):
        raise NotImplementedError(f"build environments of type {environment['type']}")
    for limit, most in (("timeoutInMinutes", 2160), ("queuedTimeoutInMinutes", 480)):
        if not 5 <= project[limit] <= most:
            raise invalid(f"Invalid {limit}: it must be between 5 and {most} minutes")
    s3 = (project.get("logsConfig") or {}).get("s3Logs") or {}
    if s3.get("status") == "ENABLED":
        raise NotImplementedError("logs of builds in S3")
    if not project["serviceRole"].startswith(f"arn:aws:iam::{ACCOUNT}:role/"):
        text = "Invalid service role: Service role account ID does not match caller's account"
        raise invalid(text)


def short(name: str) -> str:
    """Return the name of a project, which its ARN may stand for."""
    return name.rpartition(":project/")[2]


def identity(build_id: str) -> str:
    """Return the id of a build, which its ARN may stand for."""
    return build_id.rpartition(":build/")[2]


def ordered(found: Iterable[str], asked: dict, default: str) -> list[str]:
    """Return names in the order that a call asks for; they come in the default one."""
    names = list(found)
    return names if asked.get("sortOrder", default) == default else names[::-1]
