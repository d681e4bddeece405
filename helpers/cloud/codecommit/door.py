"""How git reaches the repositories: smart HTTP, with passwords that are signatures.

``git clone -c credential.helper='!aws codecommit credential-helper --ignore-host-check $@'
-c credential.useHttpPath=true URL`` sets a clone up so that AWS's own helper makes them.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import shutil
import subprocess
import tempfile
import time
from datetime import UTC, datetime

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import get_input_stream

from helpers.cloud import permissions, signatures
from helpers.cloud.calls import Refusal
from helpers.cloud.codecommit.repository import Repository, variables
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import sts

DOOR = "/v1/repos/"
PATH = re.compile(r"/v1/repos/([\w.-]+)/(info/refs|git-upload-pack|git-receive-pack)")
LIFETIME = 15 * 60  # seconds that a signature is good for
PART = 1 << 16  # bytes


def url(name: str) -> str:
    """Return where git finds a repository."""
    return f"{os.environ['AWS_ENDPOINT_URL']}{DOOR}{name}"


def door(environ, start_response):
    """Answer git (a WSGI application)."""
    request = Request(environ)
    try:
        response = _answer(request)
    except Refusal as problem:
        response = Response(f"{problem.message}\n", problem.status, content_type="text/plain")
        if problem.status == 401:
            response.headers["WWW-Authenticate"] = 'Basic realm="CodeCommit"'
    return response(environ, start_response)


def _answer(request: Request) -> Response:
    from helpers.cloud.services import codecommit

    found = PATH.fullmatch(request.path)
    if not found:
        raise Refusal("NotFound", "Not found", 404)
    name, what = found.groups()
    key, region = _caller(request, name, codecommit.regions())
    service = request.args.get("service", "") if what == "info/refs" else what
    if service not in ("git-upload-pack", "git-receive-pack"):
        raise Refusal("Forbidden", "Please upgrade your git client.", 403)
    push = service == "git-receive-pack"
    arn = f"arn:aws:codecommit:{region}:{ACCOUNT}:{name}"
    permissions.require(key, "codecommit:GitPush" if push else "codecommit:GitPull", arn)
    repository = codecommit.of(region).repositories.get(name)
    if not repository:
        raise Refusal("NotFound", f"Repository {name} does not exist", 404)
    who = sts.caller(key)[0]
    if what != "git-receive-pack":
        return _serve(request, repository, what, who)
    with repository.changing(who):
        response = _serve(request, repository, what, who)
        response.get_data()  # git has changed the refs when it has said all
        return response


def _caller(request: Request, name: str, regions: set[str]) -> tuple[str, str]:
    """Return the key whose signature the password is, and the region that it was made for.

    Raises:
        Refusal: there is no password, or it is none.
    """
    given = request.authorization
    if not given or not given.username:
        raise Refusal("Unauthorized", "Unauthorized", 401)
    key, _, token = given.username.partition("%")
    said = re.fullmatch(r"(\d{8}T\d{6})Z([0-9a-f]{64})", given.password or "")
    credentials = signatures.credentials_of(key)
    if said and credentials and (credentials.token or "") == token and not sts.expired(key):
        with contextlib.suppress(ValueError):  # no date
            made = datetime.strptime(said[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
            for region in regions if abs(time.time() - made) < LIFETIME else ():
                right = _signature(credentials, region, said[1], request.host, name)
                if hmac.compare_digest(right, said[2]):
                    return key, region
    raise Refusal("Forbidden", "The security token or the signature is invalid.", 403)


def _signature(credentials, region: str, date: str, host: str, name: str) -> str:
    signer, request = SigV4Auth(credentials, "codecommit", region), AWSRequest()
    request.context["timestamp"] = date
    canonical = f"GIT\n{DOOR}{name}\n\nhost:{host.split(':')[0]}\n\nhost\n"
    return signer.signature(signer.string_to_sign(request, canonical), request)


def _serve(request: Request, repository: Repository, what: str, who: str) -> Response:
    """Have git answer a request; what comes and goes may be large."""
    with tempfile.TemporaryFile() as body:
        shutil.copyfileobj(get_input_stream(request.environ), body)
        size = body.tell()
        body.seek(0)
        process = subprocess.Popen(
            ["git", "http-backend"],
            stdin=body,
            stdout=subprocess.PIPE,
            env=variables(
                GIT_PROJECT_ROOT=str(repository.folder.parent),
                GIT_HTTP_EXPORT_ALL="1",
                GIT_PROTOCOL=request.headers.get("Git-Protocol", ""),
                PATH_INFO=f"/{repository.folder.name}/{what}",
                REQUEST_METHOD=request.method,
                QUERY_STRING=request.query_string.decode(),
                CONTENT_TYPE=request.content_type or "",
                CONTENT_LENGTH=str(size),
                HTTP_CONTENT_ENCODING=request.headers.get("Content-Encoding", ""),
                REMOTE_USER=who,
                REMOTE_ADDR="127.0.0.1",
            ),
        )
    headers = {}
    while line := process.stdout.readline().decode().strip():
        field, _, value = line.partition(": ")
        headers[field] = value
    status = headers.pop("Status", "200 OK")
    response = Response(iter(lambda: process.stdout.read(PART), b""), status, headers)

    @response.call_on_close
    def end() -> None:
        process.stdout.close()
        process.wait()

    return response
