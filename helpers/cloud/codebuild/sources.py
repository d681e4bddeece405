"""Sources: what a build works on, fetched with the keys of its role."""

from __future__ import annotations

import re

from helpers.cloud import permissions
from helpers.cloud.archives import Files, unpack
from helpers.cloud.codebuild.errors import Failure
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.stacks.api import Caller

HERE = ("S3", "NO_SOURCE", "CODEPIPELINE", "CODECOMMIT")


def fetch(call: Caller, source: dict, version: str) -> tuple[Files, str]:
    """Return the files of a source, and which version they are.

    Raises:
        ClientError, Refusal: the role may not have it, or it is not there.
        ValueError: it is no archive that can be unpacked.
    """
    kind, location = source["type"], source.get("location") or ""
    if kind == "S3":
        bucket, key = split(location)
        if not key or key.endswith("/"):
            return _folder(call, bucket, key), ""
        where = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
        answer = call("s3", "GetObject", where)
        return unpack(answer["Body"].read()), answer.get("VersionId") or answer["ETag"].strip('"')
    if kind == "CODECOMMIT":
        return _commit(call, location.rsplit("/", 1)[-1], version)
    return {}, ""


def buildspec(call: Caller, wanted: str, files: Files, folder: str) -> str:
    """Return the text of a buildspec: it is given itself, an object of S3, or a file of the source.

    Raises:
        ClientError: the role may not read the object, or it is not there.
        Failure: there is no such file.
    """
    if wanted.startswith("arn:aws:s3:::"):
        bucket, key = split(wanted)
        answer = call("s3", "GetObject", {"Bucket": bucket, "Key": key})
        return answer["Body"].read().decode(errors="replace")
    if re.search(r"[\n{]", wanted):
        return wanted
    path = wanted.removeprefix("./")
    if path not in files:
        raise Failure("YAML_FILE_ERROR", f"stat {folder}/{path}: no such file or directory")
    return files[path][0].decode(errors="replace")


def split(location: str) -> tuple[str, str]:
    """Return bucket and key of an address in S3."""
    bucket, _, key = re.sub("^(arn:aws:s3:::|s3://)", "", location).partition("/")
    return bucket, key


def _folder(call: Caller, bucket: str, prefix: str) -> Files:
    found: Files = {}
    more: dict | None = {"Bucket": bucket, "Prefix": prefix}
    while more:
        page = call("s3", "ListObjectsV2", more)
        for key in (one["Key"] for one in page.get("Contents", [])):
            if not key.endswith("/"):
                answer = call("s3", "GetObject", {"Bucket": bucket, "Key": key})
                found[key.removeprefix(prefix)] = answer["Body"].read(), 0o644
        token = page.get("NextContinuationToken")
        more = more | {"ContinuationToken": token} if token else None
    return found


def _commit(call: Caller, repository: str, version: str) -> tuple[Files, str]:
    from helpers.cloud.services import codecommit

    arn = f"arn:aws:codecommit:{call.region}:{ACCOUNT}:{repository}"
    permissions.require(call.credentials.access_key, "codecommit:GitPull", arn)
    version = version.removeprefix("refs/heads/")
    if not re.fullmatch("[0-9a-f]{40}", version):
        version, _ = codecommit.tip(call.region, repository, version or "main")
    return unpack(codecommit.archive(call.region, repository, version)), version
