"""The process behind ``helpers.cluster.network``."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import urllib3

from helpers.cluster import dns, services, volumes
from helpers.cluster.api import Api, ApiError
from helpers.cluster.gateway import BACKLOG, DOOR, Forwarder, Stream, ask, connect, join, refuse

WATCHED = ("services", "endpoints", "nodes")
LENT = 8  # connections to the API server that wait in the gateway
RETRY = 5  # seconds until an address that could not be bound is tried again
BUSY = "Something else listens there; stop it, or choose another port"
LOW = (
    "Ports below 1024 are reserved for root on this machine. Choose another port for the Service, "
    "such as {}, or have an administrator run: sysctl net.ipv4.ip_unprivileged_port_start={}"
)


class Proxy:
    """What one cluster's network process does."""

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / "cluster.json").read_text())
        self._folder, self._rung = folder, settings["rung"]
        self._octet, self._api_port = settings["octet"], settings["port"]
        self._token = (folder / "gateway.token").read_text()
        self._api = Api(folder / "network.kubeconfig")
        self._seen: dict[str, dict[tuple, dict]] = {}
        self._changed = asyncio.Event()
        self._ports = Forwarder(self.dial)
        self._resolver = dns.Resolver()
        self._balancers: dict[str, tuple[str, set[int]]] = {}  # by uid: address, ports
        self._written: dict[str, tuple] = {}
        self._told: set[str] = set()
        self._door = ("127.0.0.1", 0)
        self._direct = False
        self._feed: asyncio.StreamWriter | None = None
        self._table = b""

    async def run(self) -> None:
        """Serve for ever."""
        os.chdir(self._folder)
        Path("egress.sock").unlink(missing_ok=True)
        await asyncio.start_unix_server(self._serve, "egress.sock", backlog=BACKLOG)
        loop = asyncio.get_running_loop()
        for what in WATCHED:
            threading.Thread(target=self._watch, args=(loop, what), daemon=True).start()
        for task in (volumes.provide, volumes.clean):
            threading.Thread(target=task, args=(self._api,), daemon=True).start()
        if self._rung == "process":
            try:
                await self._resolver.serve(self._local(f"10.{self._octet}.128.10"))
            except OSError as problem:
                print("No DNS:", problem, file=sys.stderr, flush=True)
            tasks = []
        else:
            tasks = [self._keep_gateway(), *(self._lend() for _ in range(LENT))]
        await asyncio.gather(self._follow(), *tasks)

    async def dial(self, ip: str, port: int) -> Stream:
        """Connect to an address as the API shows it; raises OSError."""
        if (ip, port) == (f"10.{self._octet}.127.1", self._api_port):
            return await asyncio.open_connection("127.0.0.1", port)
        if self._direct or not ip.startswith(f"10.{self._octet}."):
            return await asyncio.open_connection(ip, port)
        if self._rung == "process":
            return await asyncio.open_connection(self._local(ip), port)
        return await ask(self._door, f"CONNECT {ip}:{port}", self._token)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            address = (await reader.readuntil(b"\r\n\r\n")).decode().split()[1]
        except (EOFError, asyncio.LimitOverrunError, OSError, ValueError, IndexError):
            writer.close()
        else:
            await connect((reader, writer), address, self.dial)

    # What the API says

    def _watch(self, loop: asyncio.AbstractEventLoop, what: str) -> None:
        for kind, found in self._api.watch(f"/api/v1/{what}"):
            loop.call_soon_threadsafe(self._note, what, kind, found)

    def _note(self, what: str, kind: str, found) -> None:
        if kind == "LISTED":
            self._seen[what] = {_key(one): one for one in found}
        elif kind == "DELETED":
            self._seen[what].pop(_key(found), None)
        else:
            self._seen[what][_key(found)] = found
        self._changed.set()

    async def _follow(self) -> None:
        """Bring listeners and the gateway up to date whenever something has changed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if len(self._seen) < len(WATCHED):
                continue
            inside, outside, names = self._read()
            if self._rung == "process":
                self._resolver.names = names
                outside += inside
            else:
                self._table = json.dumps({"names": names, "ports": inside}).encode()
                self._send()
            failed = await self._ports.apply(outside)
            for ip, port, problem in failed:
                self._not_bound(self._owners[ip, port], ip, port, problem)
            if failed:
                asyncio.get_running_loop().call_later(RETRY, self._changed.set)

    def _read(self) -> tuple[list, list, dict]:
        """Return what to listen at in the cluster, what on this machine, and all names."""
        inside, outside, names, self._owners = [], [], {}, {}
        nodes = [address for node in self._seen["nodes"].values() for address in _addresses(node)]
        api = [f"10.{self._octet}.127.1", self._api_port]
        inside.append([self._local(api[0]), api[1], [api], 0])
        for key, service in self._seen["services"].items():
            spec, endpoints = service["spec"], self._seen["endpoints"].get(key, {})
            names |= services.names(service, endpoints, self._local)
            balancer, seconds = self._balancer(service), services.seconds(service)
            for port in spec.get("ports") or []:
                at = [(outside, node, port["nodePort"]) for node in nodes if port.get("nodePort")]
                if spec.get("clusterIP") not in (None, "", "None", f"10.{self._octet}.128.10"):
                    at.append((inside, self._local(spec["clusterIP"]), port["port"]))
                if balancer:
                    at.append((outside, balancer, port["port"]))
                if at and port.get("protocol", "TCP") != "TCP":
                    said = f"Port {port['port']}/{port['protocol']}: only TCP is passed on here."
                    self._tell(service, "ProtocolNotSupported", said)
                    continue
                for where, ip, number in at:
                    where.append([ip, number, services.targets(port, endpoints), seconds])
                    self._owners[ip, number] = service
        return inside, outside, names

    def _local(self, ip: str) -> str:
        """Return where an address of the cluster really is: processes live on the loopback."""
        mine = self._rung == "process" and ip.startswith(f"10.{self._octet}.")
        return f"127{ip[2:]}" if mine else ip

    # LoadBalancers, and what users are told

    def _balancer(self, service: dict) -> str:
        """Return the address of a LoadBalancer, chosen if need be; empty if there is none."""
        uid, spec = service["metadata"]["uid"], service["spec"]
        written = (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or []
        if spec["type"] != "LoadBalancer":
            self._balancers.pop(uid, None)
            if written:
                self._write(service, [])
            return ""
        ports = {port["port"] for port in spec["ports"] if port.get("protocol", "TCP") == "TCP"}
        address, known = self._balancers.get(uid, ("", set()))
        if ports != known:
            address = self._choose(
                service, address or (written and written[0].get("ip")) or "", ports, known
            )
            self._balancers[uid] = (address, ports)
        wanted = [{"ip": address}] if address else []
        if [{"ip": one.get("ip")} for one in written] != wanted:
            self._write(service, wanted)
        return address

    def _choose(self, service: dict, first: str, ports: set[int], held: set[int]) -> str:
        """Return an address at which all ports can be bound, best the one it has already."""
        others = [f"127.{self._octet}.127.{number}" for number in range(2, 255)]
        taken = {address for address, _ in self._balancers.values()} - {first}
        for address in [first] * bool(first) + others:
            if address in taken:
                continue
            refused = [
                (port, problem)
                for port in sorted(ports - held if address == first else ports)
                if (problem := _problem(address, port))
            ]
            if not refused:
                return address
            port, problem = refused[0]
            if problem == errno.EACCES:
                break
        self._not_bound(service, address, port, problem)
        return ""

    def _not_bound(self, service: dict, ip: str, port: int, problem: int) -> None:
        help_ = LOW.format(port + 8000, port) if problem == errno.EACCES else BUSY
        self._tell(service, "PortNotBound", f"{ip}:{port}: {os.strerror(problem)}. {help_}.")

    def _write(self, service: dict, ingress: list) -> None:
        """Write a Service's LoadBalancer status, once."""
        meta = service["metadata"]
        said = (meta["resourceVersion"], str(ingress))
        if self._written.get(meta["uid"]) != said:
            self._written[meta["uid"]] = said
            path = f"/api/v1/namespaces/{meta['namespace']}/services/{meta['name']}/status"
            body = {"status": {"loadBalancer": {"ingress": ingress or None}}}
            self._later(self._api.patch, path, body)

    def _tell(self, service: dict, reason: str, message: str) -> None:
        """Put a warning into a Service's events, once."""
        meta = service["metadata"]
        digest = hashlib.sha256(f"{meta['uid']} {reason} {message}".encode()).hexdigest()[:16]
        if digest in self._told:
            return
        self._told.add(digest)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        event = {
            "metadata": {"name": f"{meta['name']}.{digest}", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Service",
                **{key: meta[key] for key in ("namespace", "name", "uid", "resourceVersion")},
            },
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": {"component": "network"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self._later(self._api.create, f"/api/v1/namespaces/{meta['namespace']}/events", event)

    def _later(self, call: Callable, path: str, body: dict) -> None:
        """Make a call to the API in a thread, so that nobody waits for it."""

        def attempt() -> None:
            try:
                call(path, body)
            except (ApiError, urllib3.exceptions.HTTPError) as problem:
                print(path, problem, file=sys.stderr, flush=True)

        asyncio.get_running_loop().run_in_executor(None, attempt)

    # The gateway

    async def _keep_gateway(self) -> None:
        """Start the gateway, feed it, and begin again when it is gone."""
        while True:
            try:
                await self._meet_gateway()
            except (OSError, EOFError, ValueError) as problem:
                print("gateway:", problem, file=sys.stderr, flush=True)
            self._feed = None
            await asyncio.sleep(0.5)

    async def _meet_gateway(self) -> None:
        program = ("-m", "helpers.cluster.bridge", str(self._folder))
        child = await asyncio.create_subprocess_exec(
            sys.executable, *program, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await child.communicate()
        self._door = ("127.0.0.1", int(said.split()[-1]))
        inner = (f"10.{self._octet}.127.1", DOOR)
        self._direct = self._rung == "docker" and await _reachable(*inner)
        if self._direct:
            self._door = inner
        deadline = time.monotonic() + 10
        while True:  # until the program in the container listens
            try:
                reader, self._feed = await ask(self._door, "TABLE", self._token)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)
        self._send()
        await reader.read()

    def _send(self) -> None:
        if self._feed and self._table:
            self._feed.write(len(self._table).to_bytes(4) + self._table)

    async def _lend(self) -> None:
        """Let the gateway have a connection to the API server whenever it takes one."""
        while True:
            try:
                stream = await ask(self._door, "LEND", self._token)
            except OSError:
                await asyncio.sleep(0.5)
            else:
                asyncio.ensure_future(self._to_api(stream))

    async def _to_api(self, stream: Stream) -> None:
        try:
            await join(stream, await asyncio.open_connection("127.0.0.1", self._api_port))
        except OSError:
            refuse(stream[1])


def _key(found: dict) -> tuple:
    return found["metadata"].get("namespace"), found["metadata"]["name"]


def _addresses(node: dict) -> list[str]:
    known = node.get("status", {}).get("addresses") or []
    return [one["address"] for one in known if one["type"] == "InternalIP"]


def _problem(ip: str, port: int) -> int:
    """Return why a port cannot be bound (errno), or 0."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((ip, port))
        except OSError as problem:
            return problem.errno
    return 0


async def _reachable(ip: str, port: int) -> bool:
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(ip, port)
        writer.close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True
