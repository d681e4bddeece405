"""Sources: what a build works on, fetched with the keys of its role."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile

from helpers.cloud import permissions
from helpers.cloud.codebuild.container import Files
from helpers.cloud.codebuild.errors import Failure
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.stacks.api import Caller

HERE = ("S3", "NO_SOURCE", "CODEPIPELINE", "CODECOMMIT")


def fetch(call: Caller, source: dict, version: str) -> tuple[Files, str]:
    """Return the files of a source, and which version they are.

    Raises:
        ClientError, Refusal: the role may not have it, or it is not there.
        ValueError: it is no archive.
    """
    kind, location = source["type"], source.get("location") or ""
    if kind == "S3":
        bucket, key = split(location)
        if not key or key.endswith("/"):
            return _folder(call, bucket, key), ""
        where = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
        answer = call("s3", "GetObject", where)
        return _unpack(answer["Body"].read()), answer.get("VersionId") or answer["ETag"].strip('"')
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


def _unpack(content: bytes) -> Files:
    """Return the files of a ZIP or tar archive."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
            return {one.filename: (archive.read(one), one.external_attr >> 16) for one in members}
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = [one for one in archive if one.isfile()]
            return {one.name: (archive.extractfile(one).read(), one.mode) for one in members}
    except tarfile.TarError:
        raise ValueError("zip: not a valid zip file") from None


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
    return _unpack(codecommit.archive(call.region, repository, version)), version
