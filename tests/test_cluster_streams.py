"""Logs, commands and forwarded ports of a node, by the tools that people use for them."""

import asyncio
import contextlib
import hashlib
import http.server
import os
import pty
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import urllib.error
import urllib.request
import zlib

import pytest
import tornado.websocket
from hypothesis import given
from hypothesis import strategies as st
from streaming import Egress, LocalRuntime
from waiting import until

from helpers.cluster import control
from helpers.cluster.agent import server, spdy
from helpers.cluster.agent.runtime import Settings
from helpers.cluster.api import Api
from helpers.containers.certificates import Authority
from helpers.vm import packages

NODE, POD = "127.77.0.1", "127.77.1.2"
BIG = os.urandom(20 << 20)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(BIG if self.path == "/big" else b"hello")

    def log_message(self, *_):
        pass


class Cluster:
    """An API server, and one node that is the machine itself."""

    def __init__(self, folder):
        self.folder, self.kubeconfig = folder, folder / "kubeconfig"
        folder.mkdir(parents=True)
        self.log = folder / "app.log"
        self.log.write_bytes(b"one\ntwo\nthree\n")
        self.runtime = LocalRuntime(self.log)
        _thread(Egress(folder / "egress.sock").serve_forever)
        self.web = http.server.ThreadingHTTPServer((POD, 0), Page)
        self.port = self.web.server_port
        _thread(self.web.serve_forever)
        control.start(folder, "streams", 77)
        self.api = Api(self.kubeconfig)
        authority = Authority(folder)
        own = folder / "nodes/one/server"
        authority.issue(own, "system:node:one", "system:nodes", addresses=(NODE,))
        authority.issue(folder / "jane", "jane", "developers")
        settings = Settings("one", 1, 77, NODE, "process")
        _thread(server.serve, folder, settings, self.runtime, self._find)
        addresses = [{"type": "InternalIP", "address": NODE}]
        endpoints = {"kubeletEndpoint": {"Port": 10250}}
        status = {"addresses": addresses, "daemonEndpoints": endpoints}
        self.api.create("/api/v1/nodes", {"metadata": {"name": "one"}, "status": status})
        self.pods = "/api/v1/namespaces/default/pods"
        until(lambda: self.api.get("/api/v1/namespaces/default/serviceaccounts")["items"])
        containers = [
            {"name": name, "image": "none", "stdin": True} for name in ("app", "ended", "none")
        ]
        spec = {
            "nodeName": "one",
            "containers": containers,
            "tolerations": [{"operator": "Exists"}],
        }
        self.api.create(self.pods, {"metadata": {"name": "web"}, "spec": spec})
        state = {"phase": "Running", "podIP": "10" + POD.removeprefix("127")}
        self.pod = self.api.patch(f"{self.pods}/web/status", {"status": state})

    def _find(self, namespace, name):
        return self.pod if (namespace, name) == ("default", "web") else None


def _thread(work, *arguments):
    threading.Thread(target=work, args=arguments, daemon=True).start()


@pytest.fixture(scope="module")
def cluster(shared_home):
    return Cluster(shared_home / "clusters/streams")


def _kubectls():
    found = [("debian", packages.program("kubectl", "kubernetes-client"))]
    return found + [("of PATH", path)] if (path := shutil.which("kubectl")) else found


class Kubectl:
    def __init__(self, program, cluster):
        self.words = [str(program), f"--kubeconfig={cluster.kubeconfig}"]

    def __call__(self, *words, **options):
        done = subprocess.run([*self.words, *words], capture_output=True, timeout=100, **options)
        return done.returncode, done.stdout, done.stderr

    @contextlib.contextmanager
    def running(self, *words, **options):
        files = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen([*self.words, *words], **{**files, **options}) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture(params=_kubectls(), ids=lambda pair: pair[0])
def kubectl(request, cluster):
    return Kubectl(request.param[1], cluster)


def test_a_command_says_how_it_ended_and_what_it_wrote_where(kubectl):
    script = "echo to out; echo to err >&2; exit 7"
    code, out, err = kubectl("exec", "web", "-c", "app", "--", "sh", "-c", script)
    assert (code, out) == (7, b"to out\n")
    assert err.splitlines()[0] == b"to err"
    assert b"exit code 7" in err


def test_arguments_arrive_as_they_are(kubectl):
    words = ["", " a b ", "c+d&e=%41", "\x1b[1m", "ü"]
    _, out, _ = kubectl("exec", "web", "-c", "app", "--", "printf", "%s|", *words)
    assert out.decode() == "".join(f"{word}|" for word in words)


def test_much_goes_through_a_command_and_comes_back(kubectl):
    code, out, _ = kubectl("exec", "-i", "web", "-c", "app", "--", "cat", input=BIG)
    assert (code, len(out)) == (0, len(BIG))
    assert out == BIG


def test_a_command_need_not_read_all_its_input(kubectl):
    code, out, _ = kubectl("exec", "-i", "web", "-c", "app", "--", "head", "-c3", input=BIG)
    assert (code, out) == (0, BIG[:3])


def test_files_are_copied_there_and_back(kubectl, tmp_path):
    (tmp_path / "big").write_bytes(BIG)
    there = tmp_path / "there"
    code, _, err = kubectl("cp", str(tmp_path / "big"), f"web:{there}", "-c", "app")
    assert code == 0, err
    assert there.read_bytes() == BIG
    code, _, err = kubectl("cp", f"web:{there}", str(tmp_path / "back"), "-c", "app")
    assert code == 0, err
    assert (tmp_path / "back").read_bytes() == BIG


def test_a_terminal_has_the_size_of_the_one_before_it(kubectl):
    mine, other = pty.openpty()
    script = "read line; stty size; echo $line"
    with kubectl.running(
        *("exec", "-it", "web", "-c", "app", "--", "sh", "-c", script),
        **{"stdin": other, "stdout": other, "stderr": other},
        start_new_session=True,
    ) as process:
        import fcntl
        import termios

        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
        os.close(other)
        os.killpg(process.pid, 28)  # SIGWINCH
        os.write(mine, b"hello\r")
        said = b""
        with contextlib.suppress(OSError):
            while data := os.read(mine, 1024):
                said += data
        assert process.wait(60) == 0
    os.close(mine)
    assert b"33 111" in said
    assert said.count(b"hello") == 2


def test_one_can_join_the_process_of_a_container(kubectl):
    code, out, _ = kubectl("attach", "-i", "web", "-c", "app", input=b"a\nb\n")
    assert (code, out) == (0, b"attached\ngot a\ngot b\n")


def test_a_command_ends_when_its_client_leaves(kubectl, cluster):
    for words in (["sleep", "1000"], ["sh", "-c", "while :; do echo x; done"]):
        before = len(cluster.runtime.commands)
        with kubectl.running("exec", "-i", "web", "-c", "app", "--", *words) as process:
            until(lambda: len(cluster.runtime.commands) > before)  # noqa: B023
            if words[0] == "sleep":
                process.stdin.write(BIG[: 1 << 20])
                process.stdin.close()
        until(lambda: cluster.runtime.commands[-1].process.poll() is not None)


def test_a_container_that_does_not_run_is_refused(kubectl):
    code, _, err = kubectl("exec", "web", "-c", "ended", "--", "true")
    assert code != 0
    assert b'container not found ("ended")' in err


def test_logs_can_be_cut(kubectl):
    assert kubectl("logs", "web", "-c", "app")[1] == b"one\ntwo\nthree\n"
    assert kubectl("logs", "web", "-c", "app", "--tail=1")[1] == b"three\n"
    assert kubectl("logs", "web", "-c", "app", "--tail=0")[1] == b""
    assert kubectl("logs", "web", "-c", "app", "--limit-bytes=5")[1] == b"one\nt"
    assert kubectl("logs", "web", "-c", "app", "-p")[1] == b"of the run before\n"


def test_there_may_be_no_logs(kubectl):
    code, _, err = kubectl("logs", "web", "-c", "none")
    assert code != 0
    assert b'container "none" in pod "web" is waiting to start: ContainerCreating' in err
    code, _, err = kubectl("logs", "web", "-c", "ended", "--previous")
    assert b'previous terminated container "ended" in pod "web" not found' in err


def test_logs_are_followed_until_either_side_ends(kubectl, cluster):
    before = cluster.log.read_bytes()
    with kubectl.running("logs", "-f", "web", "-c", "app") as process:
        assert process.stdout.read(len(before)) == before
        with cluster.log.open("ab") as log:
            log.write(b"four\n")
        assert process.stdout.readline() == b"four\n"
    until(lambda: cluster.runtime.following == 0)
    with kubectl.running("logs", "-f", "web", "-c", "app") as process:
        until(lambda: cluster.runtime.following == 1)
        cluster.runtime.ended = True
        assert process.wait(60) == 0
    cluster.runtime.ended = False
    cluster.log.write_bytes(before)


def test_ports_are_forwarded(kubectl, cluster):
    with socket.create_server((POD, 0)) as unused:
        closed = unused.getsockname()[1]
    ports = [f":{cluster.port}", f":{closed}"]
    with kubectl.running("port-forward", "web", *ports) as process:
        local = []
        while len(local) < 2:
            if found := re.search(rb"127.0.0.1:(\d+)", process.stdout.readline()):
                local.append(int(found[1]))
        _refused(f"http://127.0.0.1:{local[1]}/")
        if b"of PATH" and process.poll() is not None:  # newer ones leave after an error
            return
        digests = []

        def fetch(path):
            with urllib.request.urlopen(f"http://127.0.0.1:{local[0]}/{path}") as answer:
                digests.append(hashlib.sha256(answer.read()).digest())

        threads = [threading.Thread(target=fetch, args=("big",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        fetch("big")
        assert digests == [hashlib.sha256(BIG).digest()] * 5


def _refused(url):
    with pytest.raises((OSError, urllib.error.URLError)):
        urllib.request.urlopen(url, timeout=30)
