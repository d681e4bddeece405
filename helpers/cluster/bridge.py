"""The cluster's network in a Docker Engine, and the container that is its gateway.

Run as a program (``python -m helpers.cluster.bridge FOLDER``) it sees to the gateway's container
and prints the port at which this machine reaches it. So the heavy libraries that talk to an
Engine do not stay in the memory of the process that needs the gateway.
"""

from __future__ import annotations

import hashlib
import io
import ipaddress
import json
import os
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import psutil

from helpers.cluster import dns, gateway

IMAGE = "python:3-slim"


class NetworkError(RuntimeError):
    """The cluster's network cannot be made.

    Attributes:
        taken: whether the range of addresses is in use, so that another may do.
    """

    def __init__(self, message: str, taken: bool = False) -> None:
        super().__init__(message)
        self.taken = taken


def create(octet: int, name: str) -> None:
    """Make the Docker network of a cluster, unless it is there; see to the gateway's image.

    Args:
        octet: N of its addresses 10.N.0.0/16.
        name: the cluster's name.

    Raises:
        NetworkError: the Engine refuses, or the range is in use (then ``taken`` is true).
        EngineError, ImageError: there is no Engine, or no image for the gateway.
    """
    from helpers import containers

    engine = containers.engine()
    containers.image(IMAGE)
    network, called = f"10.{octet}.0.0/16", _name(name)
    there = _docker("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}}{{end}}", called)
    if there.stdout.strip() == network:
        return
    if engine.rung == "docker" and (used := _used(ipaddress.ip_network(network))):
        raise NetworkError(f"This machine uses addresses of {network} already: {used}.", True)
    # The half above 10.N.128.0 is Services': the gateway takes every address there for its own.
    words = ["--subnet", network, "--gateway", f"10.{octet}.127.254"]
    words += ["--ip-range", f"10.{octet}.126.0/24", "--label", containers.label()]
    words += ["--label", f"lab.cluster={name}"]
    made = _docker("network", "create", *words, called)
    if made.returncode:
        taken = "overlap" in made.stderr
        raise NetworkError(f"No Docker network {called}: {made.stderr.strip()}", taken)


def run_gateway(folder: Path) -> int:
    """Make sure that the gateway of the cluster in a folder runs.

    Returns:
        The port of 127.0.0.1 at which it takes this machine's requests.

    Raises:
        NetworkError: the Engine refuses; also what ``create`` raises.
    """
    settings = json.loads((folder / "cluster.json").read_text())
    octet, name = settings["octet"], f"{_name(settings['name'])}-gateway"
    create(octet, settings["name"])
    files, token = _files(), (folder / "gateway.token").read_text()
    recipe = hashlib.sha256(files + token.encode()).hexdigest()[:12]
    running = _docker("inspect", "-f", '{{.State.Running}} {{index .Config.Labels "recipe"}}', name)
    if running.stdout.split() != ["true", recipe]:
        from helpers import containers

        _docker("rm", "-f", name)
        words = ["--name", name, "--label", containers.label(), "--label", f"recipe={recipe}"]
        words += ["--label", f"lab.cluster={settings['name']}"]
        words += ["--network", _name(settings["name"]), "--ip", f"10.{octet}.127.1"]
        words += ["--cap-add", "NET_ADMIN", "--env", "LAB_TOKEN", "--workdir", "/"]
        words += ["--publish", f"127.0.0.1::{gateway.DOOR}", "--stop-signal", "KILL", IMAGE]
        words += ["python", "-m", gateway.__name__, str(octet), str(settings["port"])]
        _must("create", *words, env={**os.environ, "LAB_TOKEN": token})
        _must("cp", "-", f"{name}:/", input=files)
        _must("start", name)
    return int(_must("port", name, str(gateway.DOOR)).split()[0].rpartition(":")[2])


def _files() -> bytes:
    """Return a tar archive of the modules that the gateway consists of."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for module in (dns, gateway):
            data = Path(module.__file__).read_bytes()
            member = tarfile.TarInfo(module.__name__.replace(".", "/") + ".py")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return archive.getvalue()


def _used(network: ipaddress.IPv4Network) -> str:
    """Say what of this machine lies in a network: an interface, or a route as narrow as it."""
    for interface, known in psutil.net_if_addrs().items():
        for one in known:
            if one.family == socket.AF_INET and ipaddress.ip_address(one.address) in network:
                return f"{interface} has {one.address}"
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        interface, start, _, _, _, _, _, mask, *_ = line.split()
        start, mask = (socket.inet_ntoa(bytes.fromhex(word)[::-1]) for word in (start, mask))
        route = ipaddress.ip_network(f"{start}/{mask}")
        if route.subnet_of(network):
            return f"there is a route to {route} by {interface}"
    return ""


def _name(cluster: str) -> str:
    from helpers import containers

    return f"{containers.prefix()}-{cluster}"


def _docker(*words: str, **options) -> subprocess.CompletedProcess:
    options.setdefault("text", "input" not in options)
    return subprocess.run(["docker", *words], capture_output=True, **options)


def _must(*words: str, **options) -> str:
    done = _docker(*words, **options)
    if done.returncode:
        said = done.stderr if isinstance(done.stderr, str) else done.stderr.decode()
        raise NetworkError(f"The cluster's gateway does not start: {said.strip()}")
    return done.stdout


if __name__ == "__main__":
    print(run_gateway(Path(sys.argv[1])))
