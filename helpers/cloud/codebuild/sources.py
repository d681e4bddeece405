"""Sources: what a build works on, fetched with the keys of its role."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile

from helpers.cloud.codebuild.container import Files
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.stacks.api import Caller

NOWHERE = "sources of type {} are on the network, which the local cloud does not use"
HERE = ("S3", "NO_SOURCE", "CODEPIPELINE", "CODECOMMIT")


def read(call: Caller, bucket: str, key: str, version: str = "") -> bytes:
    """Return an object of S3.

    Raises:
        ClientError: there is none, or the role may not read it.
    """
    where = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
    return call("s3", "GetObject", where)["Body"]


def unpack(content: bytes) -> Files:
    """Return the files of a ZIP or tar archive.

    Raises:
        ValueError: it is neither.
    """
    body = io.BytesIO(content)
    if zipfile.is_zipfile(body):
        with zipfile.ZipFile(body) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
            return {one.filename: (archive.read(one), one.external_attr >> 16) for one in members}
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = [one for one in archive if one.isfile()]
            return {one.name: (archive.extractfile(one).read(), one.mode) for one in members}
    except tarfile.TarError:
        raise ValueError("zip: not a valid zip file") from None


def fetch(call: Caller, source: dict, version: str) -> tuple[Files, str]:
    """Return the files of a source, and which version they are.

    Raises:
        ClientError, Refusal: the role may not have it, or it is not there.
        ValueError: it is no archive.
    """
    kind, location = source["type"], source.get("location") or ""
    if kind == "S3":
        bucket, _, key = re.sub("^(arn:aws:s3:::|s3://)", "", location).partition("/")
        if not key or key.endswith("/"):
            return _folder(call, bucket, key), ""
        where = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
        answer = call("s3", "GetObject", where)
        return unpack(answer["Body"]), answer.get("VersionId") or answer["ETag"].strip('"')
    if kind == "CODECOMMIT":
        return _commit(call, location.rsplit("/", 1)[-1], version)
    return {}, ""


def _folder(call: Caller, bucket: str, prefix: str) -> Files:
    found: Files = {}
    more = {"Bucket": bucket, "Prefix": prefix}
    while more:
        page = call("s3", "ListObjectsV2", more)
        for one in page.get("Contents", []):
            if not one["Key"].endswith("/"):
                found[one["Key"].removeprefix(prefix)] = read(call, bucket, one["Key"]), 0o644
        token = page.get("NextContinuationToken")
        more = more | {"ContinuationToken": token} if token else None
    return found


def _commit(call: Caller, repository: str, version: str) -> tuple[Files, str]:
    from helpers.cloud import permissions
    from helpers.cloud.services import codecommit

    arn = f"arn:aws:codecommit:{call.region}:{ACCOUNT}:{repository}"
    permissions.require(call.credentials.access_key, "codecommit:GitPull", arn)
    version = version.removeprefix("refs/heads/")
    if not re.fullmatch("[0-9a-f]{40}", version):
        version, _ = codecommit.tip(call.region, repository, version or "main")
    return unpack(codecommit.archive(call.region, repository, version)), version
