"""The network of a cluster: Services are reached, on this machine and in pods.

``python -m helpers.cluster.network FOLDER`` does what kube-proxy and konnectivity do elsewhere: it
follows Services and Endpoints, listens for NodePorts and LoadBalancers on loopback addresses,
connects the API server with pods (``egress.sock``), and feeds the gateway.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
from pathlib import Path

import psutil

from helpers import ledger
from helpers.cluster.bridge import NetworkError, create
from helpers.cluster.control import AGAIN

__all__ = ["NetworkError", "dial", "prepare", "start"]


def prepare(folder: Path, octet: int, name: str) -> None:
    """Make sure that the addresses 10.N.0.0/16 can be used by a cluster.

    Args:
        folder: the cluster's, with ``cluster.json``.
        octet: N.
        name: the cluster's name.

    Raises:
        NetworkError: they cannot; another N may do where its ``taken`` is true.
        EngineError, ImageError: there is no Engine, or no image for the gateway.
    """
    if json.loads((folder / "cluster.json").read_text())["rung"] != "process":
        create(octet, name)
    elif any(c.laddr.ip.startswith(f"127.{octet}.") for c in psutil.net_connections("inet4")):
        raise NetworkError(f"Something listens at 127.{octet}.0.0/16 already.", taken=True)


def start(folder: Path) -> None:
    """Start the network of the cluster in a folder; it is started again whenever it dies."""
    if json.loads((folder / "cluster.json").read_text())["rung"] != "process":
        from helpers import containers

        containers.engine()  # points this process, and those that it starts, at the Engine
    token = folder / "gateway.token"
    if not token.exists():
        token.touch(0o600)
        token.write_text(secrets.token_hex(16))
    program = [sys.executable, "-W", "ignore:::runpy", "-m", "helpers.cluster.network", str(folder)]
    ledger.spawn(
        f"network of {folder.name}",
        [*AGAIN, *program],
        log=folder / "network.log",
        facts={"cluster": folder.name},
    )


def dial(folder: Path, ip: str, port: int, timeout: float = 10) -> socket.socket:
    """Connect to a pod, a Service or a node, as the API server does.

    Args:
        folder: the cluster's.
        ip: an address as the API shows it.
        port: the port there.
        timeout: seconds that this may take; the socket keeps it.

    Raises:
        OSError: nothing answers there, or the cluster's network does not run.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout)
        # A path of a UNIX socket has at most 108 bytes; the folder's may be longer.
        short = os.open(folder, os.O_PATH)
        try:
            connection.connect(f"/proc/self/fd/{short}/egress.sock")
        finally:
            os.close(short)
        connection.sendall(f"CONNECT {ip}:{port} HTTP/1.1\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (byte := connection.recv(1)):
                break
            head += byte
        if b" 200 " not in head:
            raise ConnectionRefusedError(f"{ip}:{port} does not answer")
    except BaseException:
        connection.close()
        raise
    return connection


if __name__ == "__main__":
    from helpers.cluster.proxy import Proxy

    asyncio.run(Proxy(Path(sys.argv[1])).run())
