"""Artifacts: ZIP files in the bucket of the pipeline, read and written as its role."""

from __future__ import annotations

from botocore.exceptions import ClientError

from helpers.cloud import archives
from helpers.cloud.codepipeline.job import Failed, Job
from helpers.cloud.stacks.api import Caller

DENIED = (
    "The service role or action role doesn't have the permissions required to access the Amazon S3 "
    "bucket named {bucket}. Update the IAM role permissions, and then try again. Error: Amazon "
    "S3:{code}:{text}"
)
MISSING = (
    "The action failed because either the artifact or the Amazon S3 bucket could not be found. "
    "Name of Amazon S3 bucket: {bucket}. Error: {text}"
)


def store(job: Job, call: Caller, data: bytes) -> None:
    """Write the output artifact of an action that has one."""
    for bucket, key in job.outputs.values():
        where = {"Bucket": bucket, "Key": key, "ServerSideEncryption": "aws:kms"}
        _s3(call, "PutObject", where | {"Body": data})


def fetch(job: Job, call: Caller, name: str) -> bytes:
    """Read an input artifact."""
    bucket, key = job.inputs[name]
    return _s3(call, "GetObject", {"Bucket": bucket, "Key": key})["Body"].read()


def unpack(job: Job, call: Caller, name: str) -> archives.Files:
    """Read the files of an input artifact, which has to be a ZIP file."""
    try:
        return archives.unpack(fetch(job, call, name))
    except ValueError as problem:
        text = f"The artifact {name} cannot be unpacked: {problem}"
        raise Failed(text, "ConfigurationError") from None


def text(job: Job, call: Caller, path: str) -> str:
    """Read a file of an input artifact: ``Artifact::folder/file``."""
    name, _, file = path.partition("::")
    if name not in job.inputs or not file:
        text = f"{path} is no file of an input artifact: write Artifact::file."
        raise Failed(text, "ConfigurationError")
    try:
        return unpack(job, call, name)[file][0].decode()
    except KeyError:
        text = f"File [{file}] does not exist in artifact [{name}]"
        raise Failed(text, "ConfigurationError") from None


def _s3(call: Caller, operation: str, wanted: dict) -> dict:
    try:
        return call("s3", operation, wanted)
    except ClientError as problem:
        error, bucket = problem.response["Error"], wanted["Bucket"]
        denied = error["Code"] == "AccessDenied"
        facts = {"bucket": bucket, "code": error["Code"], "text": error.get("Message", "")}
        text = (DENIED if denied else MISSING).format(**facts)
        raise Failed(text, "PermissionError" if denied else "JobFailed") from None
