"""The registry of ECR: an address that speaks the Docker registry's API and asks IAM first.

The contents of images lie in a registry of their own (``containers.registries``), each region's
apart, which only validates and stores. Which images there are, and which tags mean them, is ECR's
state.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import secrets
import time
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote

from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import get_input_stream

from helpers.cloud import permissions, signatures
from helpers.cloud.calls import Refusal
from helpers.cloud.environment import ACCOUNT
from helpers.containers import daemon, registries

DOOR = "/v2/"
LIFETIME = 12 * 3600  # seconds that a token is good for
PATH = re.compile(r"/v2/(.+)/(blobs/uploads|blobs|manifests|tags)/([^/]*)")
ACTIONS = {
    "HEAD blobs": "BatchCheckLayerAvailability",
    "GET blobs": "GetDownloadUrlForLayer",
    "POST blobs/uploads": "InitiateLayerUpload",
    "GET blobs/uploads": "UploadLayerPart",
    "PATCH blobs/uploads": "UploadLayerPart",
    "PUT blobs/uploads": "CompleteLayerUpload",
    "HEAD manifests": "BatchGetImage",
    "GET manifests": "BatchGetImage",
    "PUT manifests": "PutImage",
    "GET tags": "ListImages",
}
PASSED = "Accept", "Content-Length", "Content-Range", "Content-Type", "Host", "Range"
HELD = {"connection", "date", "server", "transfer-encoding"}  # headers of one connection
PART = 1 << 16  # bytes
ON_AWS = rf"{ACCOUNT}\.dkr\.ecr\.[a-z0-9-]*\.amazonaws\.com"


@dataclass(frozen=True)
class Token:
    """What a password for the registry stands for: the key that asked, and where; until when."""

    key: str
    region: str
    expires: float


TOKENS: dict[str, Token] = {}


def host() -> str:
    """Return host and port of the registry, as the Docker Engine reaches it."""
    return f"{daemon.host()}:{os.environ['MOTO_PORT']}"


def local(name: str) -> str:
    """Return an image's name; the account's registry, as AWS names it, is the one here."""
    return re.sub(f"^{ON_AWS}/", f"{host()}/", name)


def token(key: str, region: str) -> tuple[str, float]:
    """Return a new password for a key and a region, and when it expires."""
    password, expires = secrets.token_urlsafe(48), time.time() + LIFETIME
    TOKENS[password] = Token(key, region, expires)
    return password, expires


def digest(content: bytes) -> str:
    """Return by which digest the registry knows something."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def door(environ, start_response):
    """Answer a Docker Engine (a WSGI application)."""
    request = Request(environ)
    try:
        response = _answer(request)
    except Refusal as problem:
        code = {"AccessDeniedException": "DENIED", "RepositoryNotFoundException": "NAME_UNKNOWN"}
        said = {"code": code.get(problem.code, problem.code), "message": problem.message}
        response = Response(json.dumps({"errors": [said]}), problem.status)
        response.content_type = "application/json"
        if problem.status == 401:
            realm = f'Basic realm="{request.host_url}",service="ecr.amazonaws.com"'
            response.headers["WWW-Authenticate"] = realm
    response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
    return response(environ, start_response)


def send(method: str, path: str, body=None, headers=None) -> http.client.HTTPResponse:
    """Ask the registry behind; whoever reads the answer closes it.

    Raises:
        Refusal: there is none.
    """
    chunked = "Transfer-Encoding" in (headers or {})
    try:
        link = http.client.HTTPConnection("127.0.0.1", registries.port(), timeout=120)
        link.request(method, DOOR + path, body, headers or {}, encode_chunked=chunked)
        return link.getresponse()
    except (OSError, registries.RegistryError) as problem:
        raise Refusal("UNAVAILABLE", f"The registry does not answer: {problem}", 503) from None


def put(region: str, name: str, manifest: bytes, kind: str) -> None:
    """Let the registry behind have a manifest.

    Raises:
        Refusal: it is none, or what it refers to is not there.
    """
    path = f"{region}/{name}/manifests/{digest(manifest)}"
    with closing(send("PUT", path, manifest, {"Content-Type": kind})) as reply:
        said = reply.read()
    if reply.status != 201:
        error = json.loads(said)["errors"][0]
        raise Refusal(error["code"], f"{error['message']}: {error.get('detail', '')}", reply.status)


def _answer(request: Request) -> Response:
    from helpers.cloud.services import ecr

    given = _token(request)
    if request.path == DOOR:
        return Response("{}", content_type="application/json")
    found = PATH.fullmatch(request.path)
    action = found and ACTIONS.get(f"{request.method} {found[2]}")
    if not action:
        raise Refusal("UNSUPPORTED", "The operation is unsupported.", 405)
    name, kind, what = found.groups()
    permissions.require(given.key, f"ecr:{action}", ecr.arn(given.region, name))
    backend = ecr.of(given.region)
    repository = backend.repository(name)
    if kind.startswith("blobs"):
        return _forward(request, given.region, found[0].removeprefix(DOOR))
    if kind == "tags":
        tags = [tag for image in repository.images for tag in image.image_tags]
        return Response(json.dumps({"name": name, "tags": tags}), content_type="application/json")
    headers = {"Location": f"{DOOR}{name}/manifests/{what}"}
    if request.method == "PUT":
        tag = "" if ":" in what else what
        image = backend.push(name, request.get_data(), tag, request.content_type or "")
        headers["Docker-Content-Digest"] = image.image_digest
        return Response(status=201, headers=headers)
    image = ecr.find(repository, what)
    if not image:
        raise Refusal("MANIFEST_UNKNOWN", "Requested image not found", 404)
    headers = {"Docker-Content-Digest": image.image_digest}
    kind = image.image_manifest_media_type
    return Response(image.image_manifest, headers=headers, content_type=kind)


def _token(request: Request) -> Token:
    """Return what the password of a request stands for."""
    given = request.authorization
    found = given and given.username == "AWS" and TOKENS.get(given.password or "")
    if not found:
        raise Refusal("UNAUTHORIZED", "Not Authorized", 401)
    if time.time() > found.expires or not signatures.credentials_of(found.key):
        text = "Your authorization token has expired. Reauthenticate and try again."
        raise Refusal("DENIED", text, 403)
    return found


def _forward(request: Request, region: str, path: str) -> Response:
    """Hand a request for a layer on, and the answer back, without keeping either."""
    headers = {name: request.headers[name] for name in PASSED if name in request.headers}
    chunked = request.headers.get("Transfer-Encoding") == "chunked"
    body = get_input_stream(request.environ)
    parts = iter(lambda: body.read(PART), b"") if chunked or request.content_length else None
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
    # What is in another repository (?mount=) is sent again, as that may be forbidden.
    query = "" if request.method == "POST" else request.query_string.decode()
    reply = send(request.method, f"{region}/{quote(path)}?{query}", parts, headers)
    kept = {name: value for name, value in reply.headers.items() if name.lower() not in HELD}
    if "Location" in kept:
        kept["Location"] = kept["Location"].replace(f"{DOOR}{region}/", DOOR, 1)
    response = Response(iter(lambda: reply.read(PART), b""), reply.status, kept)
    response.call_on_close(reply.close)
    return response
