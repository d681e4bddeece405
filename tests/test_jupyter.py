"""JupyterLab's server with the course's settings: what its proxy leads a browser to."""

import http.server
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from waiting import until

from helpers import machine

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("jupyter_server_proxy")


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.server.server_address[0]} {self.path}".encode())

    def log_message(self, *words):
        pass


def ask(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, ""
    except OSError:
        return 0, ""


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory):
    """The URL of a Jupyter server that is set up as ``make lab`` and Binder do it."""
    (port,) = machine.free_ports(1)
    folder = tmp_path_factory.mktemp("jupyter")
    paths = [f"{ROOT}/helpers/jupyter", *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    settings = {"JUPYTER_CONFIG_PATH": ":".join(paths), "HOME": str(folder)}
    words = ["--no-browser", "--allow-root", "--IdentityProvider.token=", "--ip=127.0.0.1"]
    words += [f"--port={port}", f"--ServerApp.root_dir={folder}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyter_server", *words],
        env={**os.environ, **settings},
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: ask(f"http://127.0.0.1:{port}/api")[0] == 200)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.11.12.13"])
def test_a_server_on_loopback_is_reached(jupyter, address):
    server = http.server.ThreadingHTTPServer((address, 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        port = server.server_port
        place = port if address == "127.0.0.1" else f"{address}:{port}"
        assert ask(f"{jupyter}/proxy/{place}/a/b") == (200, f"{address} /a/b")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("host", ["10.1.2.3", "169.254.169.254", "example.org", "127.0.0.1.nip.io"])
def test_other_machines_are_not(jupyter, host):
    assert ask(f"{jupyter}/proxy/{host}:80/")[0] == 403
