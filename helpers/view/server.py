"""The page's server, on loopback. Whoever knows the page's address may look and break things."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from helpers import ledger
from helpers.view import drawing, faults
from helpers.view.look import NAME, Looker

PAGE = Path(__file__).with_name("page.html")
FRESH_SECONDS = 0.9  # for so long all browsers are given the same look
# Nothing comes from elsewhere, and nobody else may put the page into a frame of theirs.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)


def start() -> str:
    """Return the address of the page; its server is started if it does not run.

    It is a secret: the address is all that one needs to look, and to break something of ours.
    """
    for entry in ledger.entries("process"):
        if entry.name == NAME:
            if _answers(entry.facts["page"]):
                return entry.facts["page"]
            ledger.stop(entry)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        page = f"http://127.0.0.1:{listening.getsockname()[1]}/{secrets.token_urlsafe(18)}/"
        command = [sys.executable, "-m", "helpers.view", str(listening.fileno())]
        with ledger.for_all():  # it outlives the lesson that has asked for it
            ledger.spawn(NAME, command, facts={"page": page}, pass_fds=[listening.fileno()])
    if not _answers(page):  # it listens already, so this waits for it
        raise RuntimeError("The page's server does not start: `python -m helpers view` once more.")
    return page


def _answers(page: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(page, timeout=20) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def serve(listening: int, page: str) -> None:
    """Serve the page until the process is stopped.

    Args:
        listening: number of the listening socket.
        page: its address; the path in it is the secret.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=listening)
    server.daemon_threads = True
    Handler.secret, Handler.now = urlsplit(page).path.strip("/"), Now()
    server.serve_forever()


class Now:
    """What exists, looked at when somebody asks, and once for all who ask at the same time."""

    def __init__(self) -> None:
        self._looker, self._lock = Looker(), threading.Lock()
        self._until, self._text, self._mark = 0.0, b"", ""

    def get(self) -> tuple[bytes, str]:
        """Return it as JSON, and a mark that changes with it."""
        with self._lock:
            if time.monotonic() > self._until:
                self._text = json.dumps(drawing.page(self._looker.look())).encode()
                self._mark = hashlib.sha256(self._text).hexdigest()[:16]
                self._until = time.monotonic() + FRESH_SECONDS
            return self._text, self._mark


class Handler(BaseHTTPRequestHandler):
    """Answers a browser, also one that comes through jupyter-server-proxy."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # an idle connection does not keep its thread for ever
    secret, now = "", None

    def do_GET(self) -> None:
        """Return the page, or what exists if that has changed since (204 if not)."""
        there = self._inside()
        if there == "":
            self._answer(200, PAGE.read_bytes(), "text/html; charset=utf-8")
        elif there == "now":
            text, mark = self.now.get()
            changed = [mark] != parse_qs(urlsplit(self.path).query).get("seen")
            self._answer(200 if changed else 204, text if changed else b"", mark=mark)
        else:
            self._answer(404)

    def do_POST(self) -> None:
        """Break what the body names, if the page itself asks."""
        length = min(int(self.headers.get("Content-Length") or 0), 1000)
        name = self.rfile.read(length).decode(errors="replace")
        if self._inside() != "fault":
            self._answer(404)
        elif not self._from_page():
            self._answer(403, b'{"said": "Only the page itself may ask for this."}')
        else:
            status, said = 200, f"Done: {name}."
            try:
                faults.choose(name).do()
            except (RuntimeError, OSError) as problem:
                status, said = 409, str(problem)
            self._answer(status, json.dumps({"said": said}).encode())

    def _inside(self) -> str:
        """Return the path behind the secret; "?" for who does not know it."""
        secret, _, rest = urlsplit(self.path).path.lstrip("/").partition("/")
        return rest if hmac.compare_digest(secret.encode(), self.secret.encode()) else "?"

    def _from_page(self) -> bool:
        """Say whether a request that changes something comes from the page, and not another site.

        A browser lets no other site set such a header, and tells where a request comes from.
        """
        origin = urlsplit(self.headers.get("Origin", "")).netloc
        hosts = (self.headers.get("Host"), self.headers.get("X-Forwarded-Host"))
        site = self.headers.get("Sec-Fetch-Site", "same-origin")
        return (
            bool(self.headers.get("X-Lab-Page"))
            and (not origin or origin in hosts)
            and site == "same-origin"
        )

    def _answer(self, status: int, body: bytes = b"", kind="application/json", mark="") -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Security-Policy", POLICY),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Lab-Mark", mark),
        ):
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Write no log: addresses are secrets."""
