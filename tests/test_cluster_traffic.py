"""Traffic notes what has come back: a version, a status or an error."""

import http.server
import threading
import time

import pytest
from waiting import until

from helpers import cluster


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers by what the test has put into ``says``: a body, a status, or nothing at all."""

    says: object = b'{"version": "7"}'

    def do_GET(self):  # noqa: N802
        if self.says is None:
            return
        good = isinstance(self.says, bytes)
        self.send_response(200 if good else self.says)
        self.end_headers()
        self.wfile.write(self.says if good else b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()
        Answers.says = b'{"version": "7"}'


def test_each_answer_is_noted_by_version_status_or_error(server):
    with cluster.traffic(f"http://127.0.0.1:{server.server_port}/") as rows:
        for says, noted in ((Answers.says, "7"), (503, "503"), (None, "RemoteDisconnected")):
            Answers.says = says
            until(lambda noted=noted: rows and rows[-1][1] == noted)
    assert {answer for _, answer in rows} == {"7", "503", "RemoteDisconnected"}


def test_nobody_there_is_an_error_and_the_end_is_the_end():
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as gone:
        url = f"http://127.0.0.1:{gone.server_port}/"
    before = set(threading.enumerate())
    with cluster.traffic(url) as rows:
        until(lambda: rows)
    sent = len(rows)
    assert {answer for _, answer in rows} == {"ConnectionRefusedError"}
    assert not set(threading.enumerate()) - before and len(rows) == sent


def test_no_more_requests_than_the_rate_allows(server):
    begin = time.monotonic()
    with cluster.traffic(f"http://127.0.0.1:{server.server_port}/", rate=50) as rows:
        until(lambda: len(rows) >= 20)
    assert len(rows) <= 50 * (time.monotonic() - begin) + 8
