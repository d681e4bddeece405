"""Source actions: an object of S3, or the last commit of a branch in CodeCommit."""

from __future__ import annotations

from botocore.exceptions import ClientError

from helpers.cloud import permissions
from helpers.cloud.codepipeline.files import store
from helpers.cloud.codepipeline.job import Failed, Job
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.stacks.api import Caller


def s3_revision(settings: dict, call: Caller) -> str:
    """Return the version id of the object that is the source."""
    where = {"Bucket": settings["S3Bucket"], "Key": settings["S3ObjectKey"]}
    return call("s3", "HeadObject", where).get("VersionId", "")


def s3(job: Job, call: Caller) -> None:
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


def codecommit(job: Job, call: Caller) -> None:
    """Take the last commit of a branch, as a ZIP file."""
    from helpers.cloud.services.codecommit import archive

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
    store(job, call, archive(call.region, name, revision))
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


# What tells that a source has changed, for pipelines that look by themselves.
REVISIONS = {"S3": s3_revision, "CodeCommit": codecommit_revision}
