"""Logs, commands and forwarded ports of a node, by the tools that people use for them."""

import asyncio
import contextlib
import hashlib
import http.server
import itertools
import json
import os
import pty
import re
import shutil
import socket
import ssl
import struct
import subprocess
import termios
import threading
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client, config, stream
from streaming import Egress, LocalRuntime
from waiting import until

from helpers.cluster import control, local
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

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(hashlib.sha256(body).digest())

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
        until(lambda: local.takes_pods(self.api))
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


@pytest.fixture(params=["Debian's", "this machine's"])
def kubectl(request, cluster):
    program = shutil.which("kubectl")
    if request.param == "Debian's":
        program = packages.program("kubectl", "kubernetes-client", "kubectl")
    if not program:
        pytest.skip("this machine has no kubectl of its own")
    return Kubectl(program, cluster)


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
    termios.tcsetwinsize(other, (33, 111))
    script = 'until [ "$(stty size)" = "33 111" ]; do :; done; echo ready; read line; echo $line'
    words = ("exec", "-it", "web", "-c", "app", "--", "sh", "-c", script)
    files = {"stdin": other, "stdout": other, "stderr": other}
    with kubectl.running(*words, **files, start_new_session=True) as process:
        os.close(other)
        said = b""
        with contextlib.suppress(OSError):  # a terminal ends so
            while data := os.read(mine, 1024):
                said += data
                if data.endswith(b"ready\r\n"):
                    os.write(mine, b"hello\r")
        assert process.wait(60) == 0
    os.close(mine)
    assert said.splitlines() == [b"ready", b"hello", b"hello"]  # the first is the echo


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


@contextlib.contextmanager
def forwarded(kubectl, port):
    with kubectl.running("port-forward", "web", f":{port}") as process:
        said = process.stdout.readline()
        yield process, int(re.search(rb"127.0.0.1:(\d+)", said)[1])


def test_a_port_is_forwarded_for_several_at_once(kubectl, cluster):
    with forwarded(kubectl, cluster.port) as (_, port), ThreadPoolExecutor() as pool:
        urls = [f"http://127.0.0.1:{port}/{path}" for path in ("big", "big", "", "big", "")]
        assert list(pool.map(_page, urls)) == [BIG, BIG, b"hello", BIG, b"hello"]
        assert _page(urls[0]) == BIG


def test_much_can_be_sent_to_a_port(kubectl, cluster):
    with forwarded(kubectl, cluster.port) as (_, port):
        answer = _page(f"http://127.0.0.1:{port}/", data=BIG)
    assert answer == hashlib.sha256(BIG).digest()


def test_a_port_at_which_nobody_listens_is_named(kubectl):
    with socket.create_server((POD, 0)) as unused:
        closed = unused.getsockname()[1]
    with forwarded(kubectl, closed) as (process, port):
        with pytest.raises(OSError):
            _page(f"http://127.0.0.1:{port}/")
        said = process.stderr.readline().decode()
    assert f"error forwarding port {closed} to pod web" in said
    assert "refused" in said


def _page(url, **options):
    with urllib.request.urlopen(url, **options) as answer:
        return answer.read()


@pytest.fixture
def core(cluster):
    return client.CoreV1Api(config.new_client_from_config(str(cluster.kubeconfig)))


def run(core, *argv, **options):
    given = {"stderr": True, "stdin": False, "stdout": True, "tty": False, **options}
    return stream.stream(
        core.connect_get_namespaced_pod_exec,
        "web",
        "default",
        container="app",
        command=argv,
        **given,
    )


def test_python_runs_a_command(core):
    assert run(core, "sh", "-c", "echo out; echo err >&2") in ("out\nerr\n", "err\nout\n")
    ended = run(core, "sh", "-c", "exit 3", _preload_content=False)
    ended.run_forever(timeout=60)
    assert ended.returncode == 3


def test_python_talks_with_a_command(core):
    there = run(core, "sh", "-c", "read a; echo $a | wc -c", stdin=True, _preload_content=False)
    there.write_stdin("x" * 3000 + "\n")
    assert there.readline_stdout(timeout=60) == "3001"
    script = 'until [ "$(stty size)" = "20 50" ]; do :; done; echo resized'
    there = run(core, "sh", "-c", script, tty=True, stdin=True, _preload_content=False)
    there.write_channel(stream.ws_client.RESIZE_CHANNEL, json.dumps({"Width": 50, "Height": 20}))
    there.run_forever(timeout=60)
    assert there.read_stdout().splitlines() == ["resized"]


def test_python_sends_much(core):
    digest = hashlib.sha256(BIG).hexdigest()
    words = ("sh", "-c", f"head -c {len(BIG)} | sha256sum")
    there = run(core, *words, stdin=True, binary=True, _preload_content=False)
    for start in range(0, len(BIG), 1 << 20):
        there.write_stdin(BIG[start : start + (1 << 20)])
    assert there.readline_stdout(timeout=60).split()[0] == digest.encode()


def test_python_forwards_a_port(core, cluster):
    ends = stream.portforward(
        core.connect_get_namespaced_pod_portforward, "web", "default", ports=str(cluster.port)
    )
    there = ends.socket(cluster.port)
    there.setblocking(True)
    there.sendall(b"GET / HTTP/1.0\r\n\r\n")
    said = b""
    while data := there.recv(1024):
        said += data
    assert said.endswith(b"\r\n\r\nhello")
    assert ends.error(cluster.port) is None


def test_only_the_api_server_and_administrators_are_served(cluster):
    url = f"https://{NODE}:10250/healthz"
    context = ssl.create_default_context(cafile=cluster.folder / "ca.pem")
    with pytest.raises(OSError):
        urllib.request.urlopen(url, context=context)
    context.load_cert_chain(cluster.folder / "jane.pem", cluster.folder / "jane.key")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url, context=context)
    certs = cluster.folder / "certs"
    context.load_cert_chain(certs / "kubelet-client.pem", certs / "kubelet-client.key")
    assert urllib.request.urlopen(url, context=context).read() == b"ok"


# --- frames of SPDY, whatever comes ---


class Peer:
    """The other side of a session: makes frames, and keeps what it is answered."""

    def __init__(self):
        self.deflate, self.answers, self.streams = zlib.compressobj(zdict=spdy.DICTIONARY), [], []
        self.session = spdy.Session(self._write, self.streams.append)

    async def _write(self, data):
        self.answers.append(data)

    def control(self, kind, body, flags=0):
        return struct.pack(">HHI", 0x8003, kind, flags << 24 | len(body)) + body

    def open(self, number, headers):
        plain = struct.pack(">I", len(headers))
        for text in (text for pair in headers.items() for text in pair):
            plain += struct.pack(">I", len(text.encode())) + text.encode()
        block = self.deflate.compress(plain) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
        return self.control(1, struct.pack(">IIH", number, 0, 0) + block)

    def data(self, number, data, last=False):
        return struct.pack(">II", number, last << 24 | len(data)) + data


names = st.text(st.characters(codec="utf-8", categories=["Ll", "Nd"]), min_size=1)


@given(
    st.dictionaries(names, st.text(), max_size=5),
    st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    st.sets(st.integers(0, 3000)),
    st.integers(10, 0x7FFF),
    st.binary(max_size=50),
)
def test_frames_may_be_split_anywhere_and_unknown_ones_come_between(
    headers, blocks, cuts, kind, junk
):
    peer = Peer()
    frames = [peer.open(1, headers), peer.control(kind, junk)]
    for block in blocks:
        frames += [peer.data(1, block), peer.data(99, block)]
    frames += [peer.control(6, struct.pack(">I", 7)), peer.data(1, b"", True)]
    whole = b"".join(frames)
    marks = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]

    async def play():
        for start, end in itertools.pairwise(marks):
            await peer.session.feed(whole[start:end])
        read = []
        while data := await peer.streams[0].read():
            read.append(data)
        return read

    assert asyncio.run(play()) == blocks
    assert peer.streams[0].headers == headers
    assert peer.control(6, struct.pack(">I", 7)) in peer.answers


@given(st.binary(max_size=400), st.booleans())
def test_garbage_ends_a_session_and_nothing_else(garbage, begun):
    peer = Peer()
    begin = peer.open(1, {"streamtype": "data"}) if begun else b""

    async def play():
        with contextlib.suppress(ValueError):
            await asyncio.wait_for(peer.session.feed(begin + garbage), 60)
        peer.session.end()

    asyncio.run(play())


@given(st.integers(1, 9), st.binary(max_size=100))
def test_a_broken_frame_of_a_known_kind_ends_a_session_and_nothing_else(kind, body):
    peer = Peer()

    async def play():
        with contextlib.suppress(ValueError):
            await peer.session.feed(peer.control(kind, body))

    asyncio.run(play())


@pytest.mark.parametrize("taken", [0, 1])
def test_a_full_stream_holds_its_connection_back_until_it_is_dropped(taken):
    peer = Peer()

    async def play():
        await peer.session.feed(peer.open(1, {}))
        feeding = asyncio.create_task(peer.session.feed(peer.data(1, b"x") * 100))
        await asyncio.sleep(0)
        assert not feeding.done()
        for _ in range(taken):
            assert await peer.streams[0].read() == b"x"
        peer.session.end()
        await asyncio.wait_for(feeding, 60)

    asyncio.run(play())
