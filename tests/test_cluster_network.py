"""The network of a cluster, with containers or processes that stand where pods would."""

import asyncio
import concurrent.futures
import contextlib
import json
import random
import shutil
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import page, until

from helpers import containers, ledger, machine
from helpers.cluster import bridge, control, dns, network
from helpers.cluster.api import Api, ApiError
from helpers.containers.certificates import Authority

DEFAULT = "/api/v1/namespaces/default"
# Says its name and who asks; at /wait it answers when something has come in by UDP.
SERVER = """
import http.server, socket, socketserver, sys
name, address = sys.argv[1:]
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/wait":
            bell.recv(1)
        said = f"{name} {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def do_POST(self):  # reads to the end of what comes in, then answers
        size = len(self.rfile.read())
        self.wfile.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n%d" % size)
        self.close_connection = True
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    request_queue_size = 512
    daemon_threads = True
bell = socket.socket(type=socket.SOCK_DGRAM)
bell.bind((address, 8081))
Server((address, 8080), Page).serve_forever()
"""
GET = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"
ASK = """
import socket, struct, sys
query, stream = bytes.fromhex(sys.argv[2]), sys.argv[3] == "tcp"
with socket.socket(type=socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as one:
    one.settimeout(10)
    one.connect((sys.argv[1], 53))
    if stream:
        one.sendall(struct.pack("!H", len(query)) + query)
        with one.makefile("rb") as file:
            print(file.read(struct.unpack("!H", file.read(2))[0]).hex())
    else:
        one.send(query)
        print(one.recv(4096).hex())
"""


class Cluster:
    """A control plane, its network, two Nodes, and two servers in the place of pods."""

    def __init__(self, rung):
        self.rung = rung
        self.folder = ledger.home() / "clusters/net"
        self.folder.mkdir(parents=True)
        facts = {"name": "net", "rung": rung}
        (self.folder / "cluster.json").write_text(json.dumps(facts))
        self.octet = facts["octet"] = self.free_octet()
        facts |= control.start(self.folder, "net", self.octet)
        (self.folder / "cluster.json").write_text(json.dumps(facts))
        self.port = facts["port"]
        who = (Authority(self.folder), "system:kube-proxy", "system:masters")
        server = f"https://127.0.0.1:{self.port}"
        control.issue_kubeconfig(self.folder / "network.kubeconfig", "net", server, *who)
        network.start(self.folder)
        self.api = Api(self.folder / "kubeconfig")
        until(lambda: exists(self.api, f"{DEFAULT}/serviceaccounts/default"))
        self.nodes = [f"127.{self.octet}.126.{number}" for number in (1, 2)]
        for number, ip in enumerate(self.nodes):
            self.api.create("/api/v1/nodes", {"metadata": {"name": f"n{number}"}})
            status = {"addresses": [{"type": "InternalIP", "address": ip}]}
            self.api.patch(f"/api/v1/nodes/n{number}/status", {"status": status})
        self.one, self.two = self.pod(10), self.pod(11)

    def free_octet(self):
        for octet in random.sample(range(16, 255), 50):
            try:
                network.prepare(self.folder, octet, "net")
                return octet
            except network.NetworkError as problem:
                assert problem.taken
        raise AssertionError("no range is free")

    @property
    def docker_network(self):
        return containers.label().replace("=", "-") + "-net"

    def pod(self, number):
        """Start a server at 10.N.1.NUMBER and return that address."""
        ip = f"10.{self.octet}.1.{number}"
        if self.rung == "process":
            program = [sys.executable, "-c", SERVER, f"pod{number}", f"127{ip[2:]}"]
            ledger.spawn(f"pod {number}", program)
        else:
            options = ["-d", "--label", containers.label(), "--network", self.docker_network]
            options += ["--ip", ip, "--name", f"{self.docker_network}-{number}", "python:3-slim"]
            sh("docker", "run", *options, "python", "-c", SERVER, f"pod{number}", "")
        return ip

    def inside(self, program, *words):
        """Run Python where a pod would and return what it prints."""
        if self.rung == "process":
            return sh(sys.executable, "-c", program, *words)
        options = ["--rm", "--label", containers.label(), "--network", self.docker_network]
        return sh("docker", "run", *options, "python:3-slim", "python", "-c", program, *words)

    def really(self, ip):
        """Where an address of the cluster is, for something that runs ``inside``."""
        return f"127{ip[2:]}" if self.rung == "process" else ip

    def service(self, name, addresses=None, **spec):
        """Make a Service without a selector, whose Endpoints we write ourselves."""
        spec.setdefault("ports", [{"port": 8000, "targetPort": 8080}])
        if spec.get("type") == "ExternalName":
            del spec["ports"]
        if addresses is not None:
            self.endpoints(name, addresses)
        body = {"metadata": {"name": name}, "spec": spec}
        return self.api.create(f"{DEFAULT}/services", body)

    def endpoints(self, name, ready, waiting=(), ports=({"port": 8080},)):
        subset = {"ports": list(ports), "notReadyAddresses": [{"ip": ip} for ip in waiting]}
        subset["addresses"] = [one if isinstance(one, dict) else {"ip": one} for one in ready]
        body = {"metadata": {"name": name}, "subsets": [subset]}
        try:
            self.api.create(f"{DEFAULT}/endpoints", body)
        except ApiError:
            self.api.replace(f"{DEFAULT}/endpoints/{name}", body)

    def node_port(self, service, node=0):
        return f"http://{self.nodes[node]}:{service['spec']['ports'][0]['nodePort']}"

    def balancer(self, name):
        """The address that a LoadBalancer has been given."""
        status = self.api.get(f"{DEFAULT}/services/{name}")["status"]["loadBalancer"]
        return "".join(one["ip"] for one in status.get("ingress") or [])

    def warning(self, name):
        """The reason of a warning about a Service, and what it says."""
        for event in self.api.get(f"{DEFAULT}/events", fieldSelector="type=Warning")["items"]:
            if event["involvedObject"]["name"] == name:
                return event["reason"], event["message"]
        return None

    def resolve(self, name, kind=1, over="udp"):
        """The code of DNS and the names and addresses that the answer holds, in its order."""
        query = ask(name, kind)
        reply = self.inside(ASK, self.really(f"10.{self.octet}.128.10"), query.hex(), over)
        reply = bytes.fromhex(reply)
        assert reply[:2] == query[:2] and reply[2] & 0x80
        return reply[3] & 15, set(dns.addresses(reply)), reply


def ask(name, kind=1):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)


def sh(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def exists(api, path):
    with contextlib.suppress(ApiError):
        return api.get(path)
    return None


def refused(url):
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.URLError as problem:
        return isinstance(problem.reason, ConnectionRefusedError)
    except ConnectionResetError:  # it was on its way when the last one ceased to be ready
        return False
    return False


@pytest.fixture(scope="module", params=["docker", "process"])
def cluster(request, shared_home):
    if request.param == "docker" and not machine.docker_socket() and not machine.qemu():
        pytest.skip("needs Docker or QEMU")
    yield Cluster(containers.engine().rung if request.param == "docker" else "process")
    assert ledger.down() == []
    shutil.rmtree(ledger.home() / "clusters")


def test_a_node_port_answers_at_every_node_in_turn(cluster):
    service = cluster.service("np", [cluster.one, cluster.two], type="NodePort")
    for node in (0, 1):
        at = cluster.node_port(service, node)
        until(lambda at=at: page(at) and page(at))  # both servers are up
        said = [page(cluster.node_port(service, node)) for _ in range(4)]
        assert said[:2] == said[2:] and {*said} == {"pod10 /", "pod11 /"}


def test_only_what_is_ready_is_asked(cluster):
    cluster.endpoints("ready", [], [cluster.one])
    service = cluster.service("ready", type="NodePort")
    cluster.service("later", [cluster.one], type="NodePort")  # seen after the one before
    until(lambda: page(cluster.node_port(cluster.api.get(f"{DEFAULT}/services/later"))))
    assert refused(cluster.node_port(service))
    cluster.endpoints("ready", [cluster.one], [cluster.two])
    until(lambda: page(cluster.node_port(service)))
    assert {page(cluster.node_port(service)) for _ in range(6)} == {"pod10 /"}
    cluster.endpoints("ready", [cluster.two], [cluster.one])
    until(lambda: page(cluster.node_port(service)) == "pod11 /")
    cluster.endpoints("ready", [], [cluster.one, cluster.two])
    until(lambda: refused(cluster.node_port(service)))


def test_no_request_is_lost_while_endpoints_change(cluster):
    service = cluster.service("busy", [cluster.one], type="NodePort")
    until(lambda: page(cluster.node_port(service)))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(page, cluster.node_port(service)) for _ in range(400)]
        for ready in ([cluster.one, cluster.two], [cluster.two], [cluster.two, cluster.one]) * 5:
            cluster.endpoints("busy", ready)
        said = [one.result() for one in asked]
    assert {*said} == {"pod10 /", "pod11 /"}


def test_connections_outlive_their_service(cluster):
    service = cluster.service("brief", [cluster.one], type="NodePort")
    until(lambda: page(cluster.node_port(service)))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(page, f"{cluster.node_port(service)}/wait")
        cluster.api.delete(f"{DEFAULT}/services/brief")
        until(lambda: refused(cluster.node_port(service)))
        ring = "import socket,sys; socket.socket(type=2).sendto(b'.', (sys.argv[1], 8081))"
        until(lambda: cluster.inside(ring, cluster.really(cluster.one)) or asked.done())
        assert asked.result() == "pod10 /wait"


def test_one_side_may_end_before_the_other(cluster):
    service = cluster.service("half", [cluster.one], type="NodePort")
    until(lambda: page(cluster.node_port(service)))
    address = (cluster.nodes[0], service["spec"]["ports"][0]["nodePort"])
    with socket.create_connection(address, timeout=30) as connection:
        body = b"x" * 3_000_000
        connection.sendall(b"POST / HTTP/1.0\r\n\r\n" + body)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as file:
            assert file.read().endswith(b"\r\n\r\n3000000")


def test_a_load_balancer_has_an_address_of_its_own(cluster):
    for name, pod in (("lb1", cluster.one), ("lb2", cluster.two)):
        cluster.service(name, [pod], type="LoadBalancer")
    one, two = (until(lambda name=name: cluster.balancer(name)) for name in ("lb1", "lb2"))
    assert one != two and one.startswith("127.") and two.startswith("127.")
    assert until(lambda: page(f"http://{one}:8000")) == "pod10 /"
    assert until(lambda: page(f"http://{two}:8000")) == "pod11 /"
    cluster.api.delete(f"{DEFAULT}/services/lb1")
    until(lambda: refused(f"http://{one}:8000"))


def test_a_port_that_cannot_be_bound_is_named(cluster):
    with socket.socket() as other:
        other.bind((cluster.nodes[0], 32100))
        other.listen()
        ports = [{"port": 8000, "nodePort": 32100}]
        cluster.service("misfit", [cluster.one], type="NodePort", ports=ports)
        reason, said = until(lambda: cluster.warning("misfit"))
    assert reason == "PortNotBound" and f"{cluster.nodes[0]}:32100" in said
    until(lambda: page(f"http://{cluster.nodes[0]}:32100"))  # once it is free


def test_other_protocols_are_refused(cluster):
    ports = [{"port": 9000, "protocol": "UDP"}]
    cluster.service("udp", [cluster.one], ports=ports)
    assert until(lambda: cluster.warning("udp"))[0] == "ProtocolNotSupported"


def test_named_ports_and_affinity(cluster):
    ports = [
        {"name": "page", "port": 8000, "targetPort": "web"},
        {"name": "none", "port": 8001, "targetPort": "void"},
    ]
    affinity = {"sessionAffinity": "ClientIP"}
    cluster.endpoints(
        "named",
        [cluster.one, cluster.two],
        ports=[{"name": "page", "port": 8080}, {"name": "none", "port": 9}],
    )
    service = cluster.service("named", type="NodePort", ports=ports, **affinity)
    until(lambda: page(cluster.node_port(service)))
    assert len({page(cluster.node_port(service)) for _ in range(6)}) == 1
    other = service["spec"]["ports"][1]["nodePort"]
    with (
        pytest.raises(OSError),
        socket.create_connection((cluster.nodes[0], other), timeout=5) as one,
    ):
        one.settimeout(5)
        one.recv(1)


def test_a_cluster_ip_answers_inside(cluster):
    service = cluster.service("inner", [cluster.one])
    url = f"http://{cluster.really(service['spec']['clusterIP'])}:8000"
    assert until(lambda: inside(cluster, url)) == "pod10 /"
    cluster.endpoints("inner", [cluster.two])
    until(lambda: inside(cluster, url) == "pod11 /")


def inside(cluster, url):
    with contextlib.suppress(AssertionError):
        return cluster.inside(GET, url)
    return ""


def test_the_api_answers_inside(cluster):
    at = cluster.really(f"10.{cluster.octet}.128.1")
    asked = (
        "import ssl, sys, urllib.request as u; c = ssl.create_default_context(cadata=sys.argv[2]);"
        "c.check_hostname = False;"
        "print(u.urlopen(sys.argv[1], timeout=20, context=c).read().decode())"
    )
    authority = (cluster.folder / "ca.pem").read_text()
    assert "gitVersion" in until(lambda: try_(cluster, asked, f"https://{at}/version", authority))


def try_(cluster, *words):
    with contextlib.suppress(AssertionError):
        return cluster.inside(*words)
    return ""


def test_names_of_services(cluster):
    service = cluster.service("named-one", [cluster.one])
    name = "named-one.default.svc.cluster.local"
    ip = cluster.really(service["spec"]["clusterIP"])
    until(lambda: cluster.resolve(name)[1] == {ip})
    assert cluster.resolve(name.upper(), over="tcp")[1] == {ip}
    assert cluster.resolve(name, 28)[:2] == (0, set())  # no IPv6, but the name is known
    assert cluster.resolve("nobody.default.svc.cluster.local")[:2] == (3, set())
    api = cluster.really(f"10.{cluster.octet}.128.1")
    assert cluster.resolve("kubernetes.default.svc.cluster.local")[1] == {api}
    assert cluster.resolve("10-83-1-10.default.pod.cluster.local")[1] == {"10.83.1.10"}


def test_names_of_pods_behind_a_headless_service(cluster):
    ports = [{"name": "web", "port": 8080}]
    ready = [{"ip": cluster.one, "hostname": "db-0"}, {"ip": cluster.two, "hostname": "db-1"}]
    cluster.endpoints("db", ready, [f"10.{cluster.octet}.1.12"], ports)
    cluster.service("db", clusterIP="None", ports=ports)
    name = "db.default.svc.cluster.local"
    both = {cluster.really(cluster.one), cluster.really(cluster.two)}
    until(lambda: cluster.resolve(name)[1] == both)
    assert cluster.resolve(f"db-1.{name}")[1] == {cluster.really(cluster.two)}
    code, _, reply = cluster.resolve(f"_web._tcp.{name}", 33)
    assert code == 0 and b"\x04db-0" in reply and b"\x04db-1" in reply
    assert struct.pack("!3H", 0, 100, 8080) in reply


def test_an_external_name_leads_on(cluster):
    there = cluster.service("there", [cluster.one])
    cluster.service("alias", type="ExternalName", externalName="there.default.svc.cluster.local")
    ip = cluster.really(there["spec"]["clusterIP"])
    until(lambda: cluster.resolve("alias.default.svc.cluster.local")[1] == {ip})


def test_the_api_server_and_nodes_reach_pods(cluster):
    spec = {"nodeName": "n0", "containers": [{"name": "page", "image": "python:3-slim"}]}
    pod = {"metadata": {"name": "page"}, "spec": {**spec, "automountServiceAccountToken": False}}
    cluster.api.create(f"{DEFAULT}/pods", pod)
    status = {"podIP": cluster.one, "podIPs": [{"ip": cluster.one}]}
    cluster.api.patch(f"{DEFAULT}/pods/page/status", {"status": status})
    ref = {"kind": "Pod", "namespace": "default", "name": "page"}
    cluster.service("proxied", [{"ip": cluster.one, "targetRef": ref}])
    at = f"{cluster.api.server}{DEFAULT}/services/proxied:8000/proxy/hello"
    until(lambda: cluster.api._pool.request("GET", at).data == b"pod10 /hello")
    with network.dial(cluster.folder, cluster.two, 8080) as connection:
        connection.sendall(b"GET /x HTTP/1.0\r\n\r\n")
        with connection.makefile("rb") as file:
            assert file.read().endswith(b"pod11 /x")
    with pytest.raises(OSError):
        network.dial(cluster.folder, cluster.two, 9)


def test_a_lost_network_comes_back(cluster):
    service = cluster.service("again", [cluster.one], type="NodePort")
    url = f"http://{cluster.really(service['spec']['clusterIP'])}:8000"
    until(lambda: inside(cluster, url))
    if cluster.rung != "process":
        sh("docker", "kill", f"{cluster.docker_network}-gateway")
        assert until(lambda: inside(cluster, url)) == "pod10 /"
    (entry,) = (one for one in ledger.entries() if one.name.startswith("network of"))
    (process,) = (one for one in ledger._processes(entry) if "python" in one.name())
    process.kill()
    until(lambda: not page(cluster.node_port(service)))
    assert until(lambda: page(cluster.node_port(service))) == "pod10 /"


def test_a_claim_gets_a_volume_and_takes_it_along(cluster):
    claims = f"{DEFAULT}/persistentvolumeclaims"
    resources = {"requests": {"storage": "1Mi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": resources}
    cluster.api.create(claims, {"metadata": {"name": "data"}, "spec": spec})
    until(lambda: cluster.api.get(f"{claims}/data")["status"]["phase"] == "Bound")
    (volume,) = cluster.api.get("/api/v1/persistentvolumes")["items"]
    name = volume["metadata"]["name"]
    assert volume["spec"]["hostPath"]["path"] == f"/lab/{name}"
    cluster.api.delete(f"{claims}/data")
    until(lambda: not cluster.api.get("/api/v1/persistentvolumes")["items"])


def test_a_range_in_use_is_said_to_be(cluster):
    if cluster.rung == "process":
        pytest.skip("needs an Engine")
    with pytest.raises(network.NetworkError, match="already|overlap") as refusal:
        bridge.create(cluster.octet, "other")
    assert refusal.value.taken
    bridge.create(cluster.octet, "net")  # its own is no obstacle


def table():
    resolver = dns.Resolver()
    resolver.names = {f"many.default.svc.{dns.ZONE}": {"A": [f"10.1.1.{n}" for n in range(99)]}}
    resolver._upstream = "127.0.0.1"  # nobody is there
    return resolver


@given(st.binary(max_size=80), st.booleans())
def test_garbage_does_not_stop_the_resolver(message, stream):
    reply = asyncio.run(table().answer(message, stream))
    assert reply == b"" or (reply[:2] == message[:2] and reply[2] & 0x80)


@given(st.binary(max_size=120), st.integers(0, 9), st.integers(0, 9))
def test_garbage_from_another_resolver_is_no_address(rest, questions, answers):
    head = struct.pack("!6H", 7, 0x8180, questions, answers, 0, 0)
    for address in dns.addresses(head + rest):
        socket.inet_aton(address)


@given(st.lists(st.from_regex("[a-zA-Z0-9_-]{1,20}", fullmatch=True), min_size=1, max_size=5))
def test_any_name_is_read_as_it_was_asked(labels):
    message = ask(".".join(labels), 33)
    assert dns.question(message) == (".".join(labels).lower(), 33, len(message))


def test_long_answers_are_cut_over_udp():
    message = ask(f"many.default.svc.{dns.ZONE}")
    short = asyncio.run(table().answer(message))
    assert len(short) <= 512 and short[2] & 2
    assert len(dns.addresses(asyncio.run(table().answer(message, stream=True)))) == 99
