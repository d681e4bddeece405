"""The process behind ``helpers.cluster.network``."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import urllib3

from helpers.cluster import dns, services, volumes
from helpers.cluster.api import Api, ApiError
from helpers.cluster.gateway import BACKLOG, Forwarder, Stream, connect
from helpers.cluster.link import Link

WATCHED = ("services", "endpoints", "nodes")
RETRY = 5  # seconds until an address that could not be bound is tried again
BUSY = "Something else listens there: stop it, or choose another port"
LOW = (
    "Ports below 1024 are reserved for root on this machine: choose another port for the Service, "
    "such as {}, or have an administrator run: sysctl net.ipv4.ip_unprivileged_port_start={}"
)


class Proxy:
    """What one cluster's network process does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        settings = json.loads((folder / "cluster.json").read_text())
        self._octet, self._api_port = settings["octet"], settings["port"]
        self._link = None if settings["rung"] == "process" else Link(folder, settings)
        self._api = Api(folder / "network.kubeconfig")
        self._seen: dict[str, dict[tuple, dict]] = {}
        self._changed = asyncio.Event()
        self._ports = Forwarder(self.dial)
        self._resolver = dns.Resolver()
        self._balanced: dict[tuple, str] = {}
        self._said: set[str] = set()

    async def run(self) -> None:
        """Serve for ever."""
        os.chdir(self._folder)  # a socket's path must be short
        Path("egress.sock").unlink(missing_ok=True)
        await asyncio.start_unix_server(self._serve, "egress.sock", backlog=BACKLOG)
        loop = asyncio.get_running_loop()
        for what in WATCHED:
            threading.Thread(target=self._watch, args=(loop, what), daemon=True).start()
        for task in (volumes.provide, volumes.clean):
            threading.Thread(target=task, args=(self._api,), daemon=True).start()
        await asyncio.gather(
            self._follow(), self._link.keep() if self._link else self._serve_names()
        )

    async def dial(self, ip: str, port: int) -> Stream:
        """Connect to an address as the API shows it; raises OSError."""
        if (ip, port) == (f"10.{self._octet}.127.1", self._api_port):
            ip = "127.0.0.1"
        if self._link and ip.startswith(f"10.{self._octet}."):
            return await self._link.dial(ip, port)
        return await asyncio.open_connection(self._local(ip), port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            address = (await reader.readuntil(b"\r\n\r\n")).decode().split()[1]
        except (EOFError, asyncio.LimitOverrunError, OSError, ValueError, IndexError):
            writer.close()
        else:
            await connect((reader, writer), address, self.dial)

    async def _serve_names(self) -> None:
        try:
            await self._resolver.serve(self._local(f"10.{self._octet}.128.10"))
        except OSError as problem:
            print("No DNS:", problem, file=sys.stderr, flush=True)

    def _local(self, ip: str) -> str:
        """Return where an address of the cluster really is: processes live on the loopback."""
        mine = not self._link and ip.startswith(f"10.{self._octet}.")
        return f"127{ip[2:]}" if mine else ip

    def _watch(self, loop: asyncio.AbstractEventLoop, what: str) -> None:
        for kind, found in self._api.watch(f"/api/v1/{what}"):
            loop.call_soon_threadsafe(self._note, what, kind, found)

    def _note(self, what: str, kind: str, found: dict | list) -> None:
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
            balancers = self._balancers()
            inside, outside, names, owners = self._read(balancers)
            if self._link:
                self._link.send(json.dumps({"names": names, "ports": inside}).encode())
            else:
                self._resolver.names = names
                outside += inside
            failed = await self._ports.apply(outside)
            for ip, port, problem in failed:
                help_ = LOW.format(port + 8000, port) if problem == errno.EACCES else BUSY
                said = f"{ip}:{port} cannot be bound ({os.strerror(problem)}). {help_}."
                if (ip, port) in owners:
                    self._tell(owners[ip, port], "PortNotBound", said)
            if failed:
                asyncio.get_running_loop().call_later(RETRY, self._changed.set)
            useless = {ip for ip, _, _ in failed}
            for key, service in self._seen["services"].items():
                ip = balancers.get(key)
                self._write_status(service, [{"ip": ip}] if ip and ip not in useless else [])

    def _read(self, balancers: dict[tuple, str]) -> tuple[list, list, dict, dict]:
        """Return where to listen in the cluster and on this machine, all names, and for whom."""
        inside, outside, names, owners = [], [], {}, {}
        api = [f"10.{self._octet}.127.1", self._api_port]
        inside.append([self._local(api[0]), api[1], [api], 0])
        nodes = [ip for node in self._seen["nodes"].values() for ip in services.addresses(node)]
        for key, service in self._seen["services"].items():
            spec, endpoints = service["spec"], self._seen["endpoints"].get(key, {})
            names |= services.names(service, endpoints, self._local)
            for port in spec.get("ports") or []:
                at = [(outside, node, port["nodePort"]) for node in nodes if port.get("nodePort")]
                if spec.get("clusterIP") not in (None, "", "None", f"10.{self._octet}.128.10"):
                    at.append((inside, self._local(spec["clusterIP"]), port["port"]))
                if key in balancers:
                    at.append((outside, balancers[key], port["port"]))
                if at and port.get("protocol", "TCP") != "TCP":
                    said = f"Port {port['port']}/{port['protocol']}: only TCP is passed on here."
                    self._tell(service, "ProtocolNotSupported", said)
                    continue
                ready, seconds = services.targets(port, endpoints), services.seconds(service)
                for where, ip, number in at:
                    where.append([ip, number, ready, seconds])
                    owners[ip, number] = service
        return inside, outside, names, owners

    def _balancers(self) -> dict[tuple, str]:
        """Return the address of each LoadBalancer: the one it has, or a new one."""
        every = {key: one for key, one in self._seen["services"].items() if _balanced(one)}
        known = {key: one for key, one in self._balanced.items() if key in every}
        for key, service in every.items():
            if key not in known and (written := services.ingress(service)):
                known[key] = written[0]["ip"]
        stem = f"127.{self._octet}.127"
        free = [ip for n in range(2, 255) if (ip := f"{stem}.{n}") not in known.values()]
        known |= zip(sorted(every.keys() - known.keys()), free, strict=False)
        self._balanced = known
        return known

    def _write_status(self, service: dict, ingress: list[dict]) -> None:
        meta = service["metadata"]
        if services.ingress(service) != ingress:
            path = f"/api/v1/namespaces/{meta['namespace']}/services/{meta['name']}/status"
            body = {"status": {"loadBalancer": {"ingress": ingress or None}}}
            about = f"{meta['uid']} {meta['resourceVersion']} {ingress}"
            self._once(about, self._api.patch, path, body)

    def _tell(self, service: dict, reason: str, message: str) -> None:
        """Put a warning into a Service's events."""
        meta = service["metadata"]
        about = f"{meta['uid']} {reason} {message}"
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        name = f"{meta['name']}.{hashlib.sha256(about.encode()).hexdigest()[:16]}"
        event = {
            "metadata": {"name": name, "namespace": meta["namespace"]},
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
        path = f"/api/v1/namespaces/{meta['namespace']}/events"
        self._once(about, self._api.create, path, event)

    def _once(self, about: str, call: Callable, path: str, body: dict) -> None:
        """Make a call to the API in a thread, unless it has been made."""

        def attempt() -> None:
            try:
                call(path, body)
            except (ApiError, urllib3.exceptions.HTTPError) as problem:
                print(path, problem, file=sys.stderr, flush=True)

        if about not in self._said:
            self._said.add(about)
            asyncio.get_running_loop().run_in_executor(None, attempt)


def _key(found: dict) -> tuple:
    return found["metadata"].get("namespace"), found["metadata"]["name"]


def _balanced(service: dict) -> bool:
    return service["spec"]["type"] == "LoadBalancer"
