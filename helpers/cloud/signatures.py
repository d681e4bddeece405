"""Who calls? Every signature is checked against the secret of its key, as AWS does it."""

from __future__ import annotations

import hmac
import os
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from botocore.auth import HmacV1Auth, S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from helpers.cloud.calls import Call, Refusal
from helpers.cloud.environment import ACCOUNT, ROOT_KEY

# What AWS answers without a signature: operations that carry their proof in another form.
UNSIGNED = {"sts:AssumeRoleWithWebIdentity", "sts:AssumeRoleWithSAML"}
# Codes differ: for an unknown key, a wrong signature, and none; and the HTTP status.
CODES = {
    "s3": ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", 403),
    "ec2": ("AuthFailure", "AuthFailure", "MissingAuthenticationToken", 401),
    "xml": ("InvalidClientTokenId", "SignatureDoesNotMatch", "MissingAuthenticationToken", 403),
    "query": ("InvalidClientTokenId", "SignatureDoesNotMatch", "MissingAuthenticationToken", 403),
    "json": (
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        403,
    ),
}
UNKNOWN = {
    "": "The security token included in the request is invalid.",
    "InvalidAccessKeyId": "The AWS Access Key Id you provided does not exist in our records.",
    "AuthFailure": "AWS was not able to validate the provided access credentials",
}
WRONG = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method."
)


@dataclass
class Signature:
    """A signature and what it was made from, wherever a request says it."""

    value: str
    headers: list[str]
    date: str
    expires: float
    token: str


def check(call: Call, lifetime: float | None = None) -> None:
    """Refuse a call that is not signed with the secret of its key, or no longer valid.

    Unsigned calls pass to S3, which has buckets for everybody.

    Args:
        call: the call.
        lifetime: for how many seconds a presigned URL is good, whatever it says itself.
    """
    protocol = call.protocol.removeprefix("rest-")
    unknown, wrong, missing, status = CODES.get(call.service) or CODES[protocol]
    if call.key == "anonymous":
        if call.service != "s3" and call.name not in UNSIGNED:
            raise Refusal(missing, "Request is missing Authentication Token", status)
        return
    credentials = credentials_of(call.key)
    try:
        given = _read(call.request, lifetime)
    except (ValueError, KeyError):  # a date that is none, a part that is missing
        raise Refusal(wrong, WRONG, status) from None
    if not credentials or (credentials.token or "") != given.token:
        raise Refusal(unknown, UNKNOWN.get(unknown, UNKNOWN[""]), status)
    made = _version2 if "AWSAccessKeyId" in call.request.args else _version4
    if not hmac.compare_digest(made(call, credentials, given), given.value):
        raise Refusal(wrong, WRONG, status)
    from helpers.cloud.services import sts

    if sts.expired(call.key):
        code = {"ec2": "RequestExpired", "json": "ExpiredTokenException"}
        text = "The security token included in the request is expired"
        raise Refusal(code.get(protocol, "ExpiredToken"), text, 400 if protocol != "query" else 403)
    if time.time() > given.expires:
        raise Refusal("AccessDenied", "Request has expired", 403)


def credentials_of(key: str) -> Credentials | None:
    """Return the secret of a key that is in force: the root user's, a session's or a user's."""
    from moto.iam.models import iam_backends

    from helpers.cloud.services import sts

    if key == ROOT_KEY:
        return Credentials(key, os.environ["AWS_SECRET_ACCESS_KEY"])
    if session := sts.session(key):
        return Credentials(key, session.secret_access_key, session.session_token)
    found = iam_backends[ACCOUNT]["aws"].access_keys.get(key)
    if found and found.status == "Active":
        return Credentials(key, found.secret_access_key)
    return None


def _read(request, lifetime: float | None) -> Signature:
    args, headers = request.args, request.headers
    if "AWSAccessKeyId" in args:  # a presigned URL of S3 in the old format
        expires = args.get("Expires", "0")
        token = args.get("x-amz-security-token", "")
        return Signature(args.get("Signature", ""), [], expires, float(expires), token)
    date = args.get("X-Amz-Date") or headers.get("X-Amz-Date", "")
    token = args.get("X-Amz-Security-Token") or headers.get("X-Amz-Security-Token", "")
    if "X-Amz-Signature" in args:
        begin = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        expires = begin + (lifetime or int(args.get("X-Amz-Expires", 0)))
        names = args.get("X-Amz-SignedHeaders", "").split(";")
        return Signature(args["X-Amz-Signature"], names, date, expires, token)
    said = dict(re.findall(r"(SignedHeaders|Signature)=([^,\s]+)", headers["Authorization"]))
    names = said.get("SignedHeaders", "").split(";")
    return Signature(said.get("Signature", ""), names, date, float("inf"), token)


def _version4(call: Call, credentials: Credentials, given: Signature) -> str:
    """Return the signature that the holder of the secret would make (Signature Version 4)."""
    presigned = "X-Amz-Signature" in call.request.args
    url = re.sub("[?&]X-Amz-Signature=[0-9a-f]+", "", call.request.raw_url)
    body = b"" if presigned or call.service == "s3" else call.request.get_data()
    request = AWSRequest(call.request.method, url, data=body)
    for name in given.headers:
        request.headers[name] = call.request.headers.get(name, "")
    request.context["timestamp"] = given.date
    _, _, region, service, _ = call.credential.split("/")
    signer = (S3SigV4Auth if service == "s3" else SigV4Auth)(credentials, service, region)
    if presigned and service == "s3":
        signer.payload = lambda request: "UNSIGNED-PAYLOAD"
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return signer.signature(text, request)


def _version2(call: Call, credentials: Credentials, given: Signature) -> str:
    """Return the same for a presigned URL in S3's old format."""
    headers = HTTPHeaders()
    for name, value in call.request.headers.items():
        headers[name] = value
    parts = urlsplit(call.request.raw_url)
    path = parts.path
    if path.count("/") == 1 and path != "/":  # a bucket's own
        path += "/"
    signer = HmacV1Auth(credentials)
    signer._get_date = lambda: given.date
    return signer.get_signature(call.request.method, parts, headers, auth_path=path)
