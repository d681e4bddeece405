"""S3: a bucket's policy decides, nothing is public by accident, and no call is half done."""

from __future__ import annotations

import json
import re
from html import unescape
from types import SimpleNamespace
from urllib.parse import unquote

from moto.core.responses import ActionResult
from moto.iam.access_control import PermissionResult
from moto.s3 import urls
from moto.s3.models import FakeBucket, FakeKey, PublicAccessBlock, S3Backend, s3_backends
from moto.s3.responses import S3Response
from moto.s3.utils import bucket_policy_is_public

from helpers.cloud import calls, policies
from helpers.cloud.calls import Call, Refusal
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import sts

# moto would take these for other calls: the list of a bucket, an object, a new bucket.
MISSING = re.compile(
    "Abac|Analytics|Annotation|IntelligentTiering|Metadata|Metrics|Rename|RequestPayment|Session"
    "|Torrent|ObjectEncryption|Directory|WriteGetObject|GetObjectRetention|PostObject"
)
# What policies call an operation, where that is another name; one after the other.
ACTIONS = {
    "(Complete|Create)MultipartUpload|CopyObject|UploadPart(Copy)?": "PutObject",
    "Delete(Bucket(Cors|Encryption|Lifecycle|Tagging)|PublicAccessBlock)": r"Put\1",
    "(Get|Put)BucketCors": r"\1BucketCORS",
    "(Get|Put)BucketEncryption": r"\1EncryptionConfiguration",
    "(Get|Put)BucketLifecycle(Configuration)?": r"\1LifecycleConfiguration",
    "(Get|Put)BucketNotificationConfiguration": r"\1BucketNotification",
    "(Get|Put)PublicAccessBlock": r"\1BucketPublicAccessBlock",
    "DeleteObjects": "DeleteObject",
    "HeadBucket|ListObjects(V2)?": "ListBucket",
    "HeadObject": "GetObject",
    "ListBuckets": "ListAllMyBuckets",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListObjectVersions": "ListBucketVersions",
    "ListParts": "ListMultipartUploadParts",
}
OWNER = "BucketOwnerEnforced"


def needs(call: Call) -> list[tuple[str, str]]:
    """Return the actions that a call of S3 takes, each with the ARN of what it is done to."""
    name = call.operation
    for pattern, new in ACTIONS.items():
        name = (match := re.fullmatch(pattern, name)) and match.expand(new) or name
    if name in ("GetObject", "DeleteObject") and "versionId" in call.request.args:
        name += "Version"
    bucket = f"arn:aws:s3:::{call.labels['Bucket']}" if "Bucket" in call.labels else "*"
    keys = [call.labels["Key"]] if "Key" in call.labels else []
    if call.operation == "DeleteObjects":
        body = call.request.get_data(as_text=True)
        keys = [unescape(key) for key in re.findall("<Key>(.*?)</Key>", body)]
    found = [(f"s3:{name}", f"{bucket}/{key}") for key in keys] or [(f"s3:{name}", bucket)]
    if source := call.request.headers.get("x-amz-copy-source"):
        path = unquote(source).split("?")[0].lstrip("/")
        found.append(("s3:GetObject", f"arn:aws:s3:::{path}"))
    there = _buckets().get(call.labels.get("Bucket", ""))
    if name == "GetObject" and there and not isinstance(there.keys.get(keys[0]), FakeKey):
        found.append(("s3:ListBucket", bucket))  # to be told that an object is not there
    return found


def policy(resource: str) -> list[dict]:
    """Return the policy of the bucket that an ARN is about, if it has one."""
    bucket = _buckets().get(resource.removeprefix("arn:aws:s3:::").split("/")[0])
    return [json.loads(bucket.policy)] if bucket and bucket.policy else []


def context(call: Call) -> dict[str, str]:
    """Return what conditions may ask about a call: its arguments and headers."""
    both = [*call.request.args.items(), *call.request.headers.items()]
    return {f"s3:{name.lower()}": value for name, value in both}


def check(call: Call) -> None:
    """Refuse what moto would misunderstand, and who may not come unnamed."""
    if call.service != "s3":
        return
    if MISSING.search(call.operation):
        raise NotImplementedError("moto has no such operation")
    bucket = _buckets().get(call.labels.get("Bucket", ""))
    _check_acl(call, bucket)
    if call.key != "anonymous":
        return
    _, names, about = sts.caller(call.key)
    for action, resource in needs(call):
        said = policies.verdict(policy(resource), action, resource, about | context(call), names)
        if said == "Deny" or not _open(call, bucket, said):
            raise Refusal("AccessDenied", "Access Denied", 403)


def _buckets() -> dict[str, FakeBucket]:
    return s3_backends[ACCOUNT]["aws"].buckets


def _open(call: Call, bucket: FakeBucket | None, said: str) -> bool:
    """Say whether everybody may do this: by the bucket's policy or the object's access list."""
    if call.operation.endswith("PreflightCheck"):  # a browser asks before it sends what counts
        return True
    if not bucket:  # moto says that there is none
        return call.operation not in ("ListBuckets", "CreateBucket", "?")
    block = bucket.public_access_block
    if said == "Allow":
        return not (block and block.restrict_public_buckets)
    key = bucket.keys.get(call.labels.get("Key", ""))
    listed = call.operation == "GetObject" and key and key.acl.public_read
    return bool(listed and not (block and block.ignore_public_acls))


def _check_acl(call: Call, bucket: FakeBucket | None) -> None:
    """Refuse access lists where they are switched off, as they are in every new bucket."""
    wanted = call.request.headers.get("x-amz-acl", "")
    owner = call.request.headers.get("x-amz-object-ownership") or OWNER
    if call.operation == "CreateBucket" and wanted not in ("", "private") and owner == OWNER:
        text = f"Bucket cannot have ACLs set with ObjectOwnership's {OWNER} setting"
        raise Refusal("InvalidBucketAclWithObjectOwnership", text)
    changes = call.operation in ("PutBucketAcl", "PutObjectAcl") or wanted
    closed = bucket and bucket.ownership_rule == OWNER
    if closed and changes and wanted != "bucket-owner-full-control":
        raise Refusal("AccessControlListNotSupported", "The bucket does not allow ACLs")


class Backend(S3Backend):
    """moto's S3 with the settings that a new bucket has today, and with policies that are read."""

    def create_bucket(self, *args, **kwargs) -> FakeBucket:
        """Make a bucket that is closed to the public and has no access lists."""
        bucket = super().create_bucket(*args, **kwargs)
        bucket.public_access_block = PublicAccessBlock(True, True, True, True)
        bucket.ownership_rule = OWNER
        return bucket

    def put_bucket_policy(self, bucket_name: str, policy: bytes) -> None:
        """Set a bucket's policy if it is one, is about this bucket, and may be public if it is."""
        bucket = self.get_bucket(bucket_name)
        _check_policy(bucket, policy)
        block = bucket.public_access_block
        if block and block.block_public_policy and bucket_policy_is_public(policy):
            text = "public policies are prevented by the BlockPublicPolicy setting of this bucket"
            raise Refusal("AccessDenied", f"Access Denied because {text}.", 403)
        super().put_bucket_policy(bucket_name, policy)

    def put_bucket_notification_configuration(self, bucket_name: str, notification_config) -> None:
        """Set where a bucket's events go: not where a policy would have to let them in."""
        if {"QueueConfiguration", "TopicConfiguration"} & notification_config.keys():
            raise NotImplementedError("events go to EventBridge or to Lambda")
        super().put_bucket_notification_configuration(bucket_name, notification_config)


def _check_policy(bucket: FakeBucket, policy: bytes) -> None:
    try:
        statements = policies.listed(json.loads(policy)["Statement"])
    except (ValueError, LookupError, TypeError):
        text = "Policies must be valid JSON and the first byte must be '{'"
        raise Refusal("MalformedPolicy", text) from None
    for one in statements:
        resources = policies.listed(one.get("Resource", one.get("NotResource")))
        if not all(re.match(rf"arn:aws:s3:::{re.escape(bucket.name)}(/|$)", r) for r in resources):
            raise Refusal("MalformedPolicy", "Policy has invalid resource")
        missing = {"Effect", "Principal", "Action", "Resource"} - {
            k.removeprefix("Not") for k in one
        }
        if missing or not resources:
            raise Refusal("MalformedPolicy", f"Missing required field {', '.join(missing)}")


class Response(S3Response):
    """moto's S3, which forgets to say that events go to EventBridge."""

    def serialized(self, action_result: ActionResult):
        """Answer a call."""
        if self.data.get("Action") == "GetBucketNotificationConfiguration":
            config = self.backend.get_bucket(self.bucket_name).notification_configuration
            if config and config.event_bridge is not None:
                action_result.result["EventBridgeConfiguration"] = {}
        return super().serialized(action_result)


Backend._url_module = SimpleNamespace(
    url_bases=urls.url_bases,
    url_paths={path: getattr(Response, way.__name__) for path, way in urls.url_paths.items()},
)
s3_backends.backend = Backend
FakeBucket.get_permission = lambda self, action, resource: PermissionResult.PERMITTED  # see check
calls.CHECKS.append(check)
