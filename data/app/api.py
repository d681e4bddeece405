"""A small web API that hands out tokens and reads them back.

There is no list of users: whoever sends a well-formed address and a password of at least 8
characters gets a token. Everything else is as in an API that is meant to be operated.

Settings come from the environment:

- ``JWT_SECRET``: what tokens are signed with, at least 32 bytes; every copy of the API needs the
  same. Needed in production; elsewhere a random one is made that lasts as long as the process.
- ``APP_ENV``: ``production``, or anything else.
- ``TOKEN_SECONDS``: how long a token is good for, 3600 unless told.
"""

import os
import re
import secrets
import sys
from datetime import UTC, datetime, timedelta

import jwt
from flask import Flask, Response, abort, json, request
from werkzeug.exceptions import BadRequest, HTTPException

VERSION = "1"

EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
BODY_BYTES = 16 * 1024
SENTENCES = {
    404: "There is nothing at this address: use /, /auth or /contents.",
    405: "This address does not take that method: the header Allow names those it takes.",
    411: "The body comes in chunks: send it whole, with the header Content-Length.",
    413: f"The body is too large: send at most {BODY_BYTES} bytes.",
    415: "The body is not announced as JSON: send the header Content-Type: application/json.",
    500: "The server failed, not you: try again, and look at its log if it happens again.",
}

app = Flask(__name__, static_folder=None)
app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
app.url_map.merge_slashes = False


def read_secret() -> bytes:
    """Return what tokens are signed with; end the process if it is missing or too short."""
    secret = os.fsencode(os.environ.get("JWT_SECRET", ""))
    if not secret and os.environ.get("APP_ENV") != "production":
        app.logger.warning("JWT_SECRET is not set: tokens are good until this process ends.")
        return secrets.token_bytes(32)
    if len(secret) < 32:
        problem = "too short" if secret else "not set"
        sys.exit(f"JWT_SECRET is {problem}: set 32 bytes or more, as from openssl rand -hex 32")
    return secret


def read_token_seconds() -> int:
    """Return how long a token is good for; end the process if that is not a sensible number."""
    seconds = os.environ.get("TOKEN_SECONDS", "3600")
    if not re.fullmatch("[1-9][0-9]{0,7}", seconds):
        sys.exit(f"TOKEN_SECONDS is {seconds!r}: give it a whole number from 1 to 99999999")
    return int(seconds)


SECRET = read_secret()
TOKEN_SECONDS = read_token_seconds()


@app.errorhandler(HTTPException)
def explain(problem: HTTPException) -> Response:
    """Answer every error as JSON, with one sentence on what is wrong and what to do."""
    answer = problem.get_response()
    answer.data = json.dumps({"error": SENTENCES.get(problem.code, problem.description)})
    answer.content_type = "application/json"
    if problem.code == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


@app.get("/")
def health() -> dict:
    """Say that the API is up, and in which version."""
    return {"status": "healthy", "version": VERSION}


@app.post("/auth")
def auth() -> dict:
    """Hand out a token for an address and a password.

    Errors: 400 (not a JSON object, or a field is missing or ill-formed), 411, 413, 415.
    """
    if "Transfer-Encoding" in request.headers:
        abort(411)
    try:
        sent = request.get_json()
    except (BadRequest, RecursionError):
        abort(400, "The body is not JSON: check its quotes, commas and brackets.")
    if not isinstance(sent, dict):
        abort(400, 'The body is not an object: send {"email": "…", "password": "…"}.')
    email, password = sent.get("email"), sent.get("password")
    if not isinstance(email, str) or len(email) > 254 or not EMAIL.fullmatch(email):
        abort(400, '"email" is missing or not an address: send one such as you@example.com.')
    if not isinstance(password, str) or len(password) < 8:
        abort(400, '"password" is missing or too short: send at least 8 characters.')
    now = datetime.now(UTC)
    claims = {"sub": email, "iat": now, "exp": now + timedelta(seconds=TOKEN_SECONDS)}
    return {"token": jwt.encode(claims, SECRET, algorithm="HS256")}


@app.get("/contents")
def contents() -> dict:
    """Say what the token in the header Authorization holds.

    Errors: 401 (no token, or it is malformed, forged or expired).
    """
    sent = request.authorization
    if sent is None or sent.type != "bearer" or not sent.token:
        abort(401, "No token came along: send the header Authorization: Bearer <token>.")
    try:
        required = {"require": ["sub", "iat", "exp"]}
        claims = jwt.decode(sent.token, SECRET, algorithms=["HS256"], options=required)
    except jwt.ExpiredSignatureError:
        abort(401, "The token has expired: get a new one from /auth.")
    except jwt.InvalidTokenError:
        abort(401, "The token was not made here or is damaged: get one from /auth.")
    issued, expires = (datetime.fromtimestamp(claims[name], UTC) for name in ("iat", "exp"))
    return {"email": claims["sub"], "issued": issued.isoformat(), "expires": expires.isoformat()}
