"""What the API promises, asked of Flask's test client and of a real gunicorn."""

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import api
import jwt
import pytest

APP = Path(api.__file__).parent
ADA = {"email": "ada@example.com", "password": "correct horse"}
JSON = "application/json"
GUNICORN = ["-m", "gunicorn", "--bind", "127.0.0.1:0", "api:app"]


@pytest.fixture
def client():
    return api.app.test_client()


def is_error(answer, code):
    """One sentence, as JSON, and never a page or a traceback."""
    assert (answer.status_code, answer.content_type) == (code, JSON)
    assert list(answer.json) == ["error"]
    assert re.fullmatch(r"\S[^<>\n]+(<token>)?\.", answer.json["error"])
    assert answer.headers.get("WWW-Authenticate") == ("Bearer" if code == 401 else None)
    return answer.json["error"]


def token(secret=api.SECRET, algorithm="HS256", **claims):
    now = int(time.time())
    claims = {"sub": "ada@example.com", "iat": now - 60, "exp": now + 60} | claims
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, secret, algorithm=algorithm)


def ask_contents(client, authorization):
    return client.get("/contents", headers={"Authorization": authorization})


def test_health(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.json == {"status": "healthy", "version": api.VERSION}


def test_a_token_says_who_and_how_long(client):
    answer = client.post("/auth", json=ADA)
    assert answer.status_code == 200 and list(answer.json) == ["token"]
    claims = jwt.decode(answer.json["token"], api.SECRET, algorithms=["HS256"])
    assert claims["sub"] == "ada@example.com"
    assert claims["exp"] - claims["iat"] == 3600
    assert abs(claims["iat"] - time.time()) < 5


def test_contents_reads_the_token_back(client):
    sent = client.post("/auth", json=ADA).json["token"]
    answer = ask_contents(client, f"Bearer {sent}")
    assert answer.status_code == 200
    assert answer.json["email"] == "ada@example.com"
    issued, expires = (datetime.fromisoformat(answer.json[name]) for name in ("issued", "expires"))
    assert issued.tzinfo == UTC and (expires - issued).total_seconds() == 3600


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_may_be_written_in_any_case(client, scheme):
    assert ask_contents(client, f"{scheme} {token()}").status_code == 200


@pytest.mark.parametrize(
    "email",
    ["a@b.co", "first.last+tag@mail.example.org", "å@exämple.se", "x" * 241 + "@example.com"],
)
def test_addresses_that_are_let_in(client, email):
    sent = client.post("/auth", json=ADA | {"email": email}).json["token"]
    assert ask_contents(client, f"Bearer {sent}").json["email"] == email


@pytest.mark.parametrize(
    "email",
    [None, 7, ["a@b.co"], "", "ada", "@b.co", "a@", "a@b", "a@b.", "a@.co", "a@b..co", "a@@b.co"]
    + ["a b@c.de", "a@b.co\n", "x" * 243 + "@example.com"],
)
def test_addresses_that_are_refused(client, email):
    assert "email" in is_error(client.post("/auth", json=ADA | {"email": email}), 400)


@pytest.mark.parametrize("password", [None, 12345678, "", "1234567", ["12345678"]])
def test_passwords_that_are_refused(client, password):
    assert "password" in is_error(client.post("/auth", json=ADA | {"password": password}), 400)


@pytest.mark.parametrize("missing", ADA)
def test_a_missing_field_is_named(client, missing):
    sent = {name: value for name, value in ADA.items() if name != missing}
    assert missing in is_error(client.post("/auth", json=sent), 400)


@pytest.mark.parametrize("body", ["", "{", "{'email': 1}", '{"email": }', b"\xff\xfe", "[" * 9999])
def test_a_body_that_is_not_json(client, body):
    assert "not JSON" in is_error(client.post("/auth", data=body, content_type=JSON), 400)


@pytest.mark.parametrize("body", ["[]", "null", "7", '"text"', "true", "NaN"])
def test_a_body_that_is_no_object(client, body):
    assert "not an object" in is_error(client.post("/auth", data=body, content_type=JSON), 400)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_announced_as_json(client, kind):
    answer = client.post("/auth", data=json.dumps(ADA), content_type=kind)
    assert "Content-Type" in is_error(answer, 415)


def test_a_body_that_is_too_large(client):
    fits = json.dumps(ADA).ljust(api.BODY_BYTES)
    assert client.post("/auth", data=fits, content_type=JSON).status_code == 200
    is_error(client.post("/auth", data=fits + " ", content_type=JSON), 413)


def test_a_body_in_chunks(client):
    chunked = {"Transfer-Encoding": "chunked"}
    assert "Content-Length" in is_error(client.post("/auth", json=ADA, headers=chunked), 411)


@pytest.mark.parametrize("path", ["/nothing", "/auth/", "//auth", "/%0a", "/static/x", "/<b>"])
def test_an_address_without_anything(client, path):
    is_error(client.post(path, json=ADA), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("POST", "/", "GET"), ("GET", "/auth", "POST"), ("DELETE", "/contents", "GET")],
)
def test_a_method_that_is_not_allowed(client, method, path, allowed):
    answer = client.open(path, method=method)
    is_error(answer, 405)
    assert allowed in answer.allow


def unsigned():
    return token(None, "none")


def altered():
    head, claims, signature = token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"sub": "eve@example.com"}
    claims = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"{head}.{claims}.{signature}"


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic YTpi", "Basic !", "Digest x=y", "e30.e30.eA", "Bearer a=b"],
)
def test_contents_without_a_token(client, authorization):
    assert "No token" in is_error(ask_contents(client, authorization), 401)


def test_contents_without_the_header(client):
    assert "No token" in is_error(client.get("/contents"), 401)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param("x", id="not a token"),
        pytest.param("a.b.c", id="not base64"),
        pytest.param("é.ü.ñ", id="not ASCII"),
        pytest.param(base64.urlsafe_b64encode(b"[" * 5001).decode() + ".e30.e30", id="deep"),
        pytest.param(token()[:-4], id="cut off"),
        pytest.param(token("another secret of thirty-two bytes!"), id="signed by another"),
        pytest.param(unsigned(), id="not signed"),
        pytest.param(token(algorithm="HS512"), id="another algorithm"),
        pytest.param(altered(), id="altered"),
        pytest.param(token(exp=None), id="good for ever"),
        pytest.param(token(iat=None), id="issued at no time"),
        pytest.param(token(sub=None), id="nobody's"),
        pytest.param(token(iat=int(time.time()) + 3600), id="issued in the future"),
    ],
)
def test_contents_with_a_token_that_was_not_made_here(client, sent):
    assert "not made here" in is_error(ask_contents(client, f"Bearer {sent}"), 401)


def test_contents_with_an_expired_token(client):
    sent = token(exp=int(time.time()) - 1)
    assert "expired" in is_error(ask_contents(client, f"Bearer {sent}"), 401)


STRANGE = ["", " ", "\0", "\ud800", "é" * 300, "'; --", "{{7*7}}", "../..", "%00", "a" * 9000]
STRANGE += [0, -1, 1e308, 10**400, True, None, [], {}, [[]], {"$ne": ""}]


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: repr(value)[:12])
def test_no_value_makes_auth_fail(client, value):
    for sent in (value, {"email": value}, {"email": f"{value}@b.co", "password": f"{value}" * 8}):
        assert client.post("/auth", json=sent).status_code < 500


@pytest.mark.parametrize(
    "body",
    [b"\0", b"\xef\xbb\xbf{}", b"\xff" * 99, b'{"email": Infinity}', b"9" * 5000, b"-", b'"\\u']
    + [b'{"a":' * 3000, b"[" * 16000, b'{"email": 1, "email": 2}', b"\r\n\r\n", b'"\\ud800"'],
    ids=lambda body: repr(body[:12]),
)
@pytest.mark.parametrize("kind", [JSON, "application/json; charset=utf-7", "a/b+json", "", "/;="])
def test_no_body_makes_auth_fail(client, body, kind):
    assert 400 <= client.post("/auth", data=body, content_type=kind).status_code < 500


def test_a_failure_of_the_server_is_explained_too(client, monkeypatch, caplog):
    monkeypatch.setattr(api, "SECRET", None)
    is_error(client.post("/auth", json=ADA), 500)
    assert "Traceback" in caplog.text
    assert ADA["password"] not in caplog.text


def run(*command, **settings):
    """Run Python where the API lies, with these settings and no others."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=APP,
        env={"PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        timeout=30,
    )


def load(**settings):
    return run("-c", "import api", **settings)


@pytest.mark.parametrize("secret", [{}, {"JWT_SECRET": ""}, {"JWT_SECRET": "x" * 31}])
def test_production_needs_a_secret(secret):
    start = load(APP_ENV="production", **secret)
    assert start.returncode == 1
    assert start.stderr.startswith("JWT_SECRET is ") and start.stderr.count("\n") == 1


def test_production_with_a_secret():
    start = load(APP_ENV="production", JWT_SECRET="é" * 16)
    assert (start.returncode, start.stderr) == (0, "")


def test_without_a_secret_elsewhere_a_warning_is_logged():
    start = load()
    assert start.returncode == 0
    assert "WARNING" in start.stderr and start.stderr.count("\n") == 1


@pytest.mark.parametrize("seconds", ["", "0", "-1", "1.5", "1h", "9" * 9])
def test_a_token_lasts_a_sensible_time(seconds):
    start = load(TOKEN_SECONDS=seconds, JWT_SECRET="x" * 32)
    assert start.returncode == 1
    assert start.stderr.startswith("TOKEN_SECONDS is ") and start.stderr.count("\n") == 1


def eventually(what, seconds=15):
    """Return what a function returns as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"not within {seconds} seconds"
        time.sleep(0.02)
    return found


@dataclass
class Server:
    """A gunicorn that runs, and the files with what it says."""

    process: subprocess.Popen
    out: Path
    err: Path

    def workers(self):
        return re.findall(r"Booting worker with pid: (\d+)", self.err.read_text())

    def port(self):
        return int(re.search(r"Listening at: http://127.0.0.1:(\d+)", self.err.read_text())[1])

    def ask(self, method, path, body=None, headers=()):
        """Send one request over a connection of its own; return the status and the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=15)
        with closing(connection):
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def stop(self):
        self.process.terminate()
        return self.process.wait(15)


@contextmanager
def serve(folder, **settings):
    """Run gunicorn as the image does, on a port of the loopback interface."""
    out, err = folder / "out", folder / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, *GUNICORN],
            cwd=APP,
            env={"PATH": os.environ["PATH"], **settings},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    server = Server(process, out, err)
    try:
        eventually(lambda: len(server.workers()) == 2)
        yield server
    finally:
        try:
            server.stop()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_nothing_secret_is_logged(tmp_path):
    post = {"Content-Type": JSON}
    with serve(tmp_path, JWT_SECRET="x" * 32, TOKEN_SECONDS="60") as server:
        status, sent = server.ask("POST", "/auth?password=battery", json.dumps(ADA), post)
        assert status == 200
        bearer = {"Authorization": "Bearer " + sent["token"]}
        assert server.ask("GET", "/contents?token=" + sent["token"], headers=bearer)[0] == 200
        assert server.ask("GET", "/%0Aforged%20line")[0] == 404
        in_chunks = iter([json.dumps(ADA).encode()])
        assert server.ask("POST", "/auth", in_chunks, post)[0] == 411
        assert server.stop() == 0
    log = server.out.read_text()
    lines = [re.search(r'127.0.0.1 "(.*)" (\d+) \d+ ms$', line) for line in log.splitlines()]
    assert sorted(line.groups() for line in lines) == [
        ("GET /%0Aforged%20line", "404"),
        ("GET /contents", "200"),
        ("POST /auth", "200"),
        ("POST /auth", "411"),
    ]
    for secret in (sent["token"], ADA["password"], "battery", "x" * 32):
        assert secret not in log + server.err.read_text()


def test_workers_come_and_go_and_the_secret_stays(tmp_path):
    with serve(tmp_path) as server:
        _, sent = server.ask("POST", "/auth", json.dumps(ADA), {"Content-Type": JSON})
        for pid in server.workers():  # one that is just booting would not hear SIGTERM
            os.kill(int(pid), signal.SIGKILL)
        eventually(lambda: len(server.workers()) == 4)
        bearer = {"Authorization": "Bearer " + sent["token"]}
        assert server.ask("GET", "/contents", headers=bearer)[0] == 200


def test_gunicorn_ends_at_once_without_a_secret_in_production():
    start = run(*GUNICORN, APP_ENV="production")
    assert start.returncode == 1
    assert "JWT_SECRET is not set" in start.stderr and "Traceback" not in start.stderr


def test_what_is_not_http_is_answered_too(tmp_path):
    with serve(tmp_path) as server:
        for wrong in ("Content-Length: -1", "X y: 1", "X: " + "y" * 9000):
            with socket.create_connection(("127.0.0.1", server.port()), timeout=15) as connection:
                connection.sendall(f"POST /auth HTTP/1.1\r\n{wrong}\r\n\r\n".encode())
                assert connection.recv(100).startswith(b"HTTP/1.1 4")


def begin(server):
    """Send half a request, and wait until a worker has taken it."""
    body = json.dumps(ADA).encode()
    head = [
        "POST /auth HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {JSON}",
        f"Content-Length: {len(body)}",
        "Expect: 100-continue",
        "Connection: close",
    ]
    connection = socket.create_connection(("127.0.0.1", server.port()), timeout=15)
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
    connection.sendall(body[:10])
    return connection, body[10:]


def finish(connection, rest):
    """Send the other half; return everything that comes back."""
    with connection:
        connection.sendall(rest)
        return b"".join(iter(lambda: connection.recv(4096), b""))


def test_a_stop_under_load_answers_every_request_that_was_taken(tmp_path):
    answered, enough = [], threading.Event()

    def keep_asking(server):
        while not enough.is_set():
            try:
                answered.append(server.ask("GET", "/")[0])
            except OSError:  # nobody took it, and nothing came back
                time.sleep(0.01)

    with serve(tmp_path) as server:
        begun = [begin(server) for _ in range(3)]
        asking = [
            threading.Thread(target=keep_asking, args=[server], daemon=True) for _ in range(4)
        ]
        for thread in asking:
            thread.start()
        eventually(lambda: len(answered) > 50)
        server.process.terminate()
        time.sleep(0.5)
        enough.set()
        for connection, rest in begun:
            answer = finish(connection, rest)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b'{"token":' in answer
        assert server.process.wait(10) == 0
        for thread in asking:
            thread.join(20)
    log = server.out.read_text()
    assert set(answered) == {200}
    assert len(answered) == log.count('"GET /"')
    assert len(begun) == log.count('"POST /auth" 200')
