"""Passing connections on, and the cluster's gateway.

The gateway is one container in the cluster's Docker network. It stands for all Services there,
answers DNS, and joins that network to this machine's loopback.

Standard library only: this file and ``dns.py`` run alone in that container.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable

from helpers.cluster import dns

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[str, int], Awaitable[Stream]]

DOOR = 7000  # the gateway's port for this machine
BACKLOG = 1024
CHUNK = 65536
LENT_PATIENCE = 10  # seconds that a pod waits for a connection to the API server
GRANTED = b"HTTP/1.1 200 OK\r\n\r\n"


async def join(one: Stream, two: Stream) -> None:
    """Pass on what comes in on each side to the other, until both have ended."""
    try:
        await asyncio.gather(_pass(one[0], two[1]), _pass(two[0], one[1]))
    except OSError:
        refuse(one[1])
        refuse(two[1])
    finally:
        one[1].close()
        two[1].close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def refuse(writer: asyncio.StreamWriter) -> None:
    """Close a connection as one that is refused (RST)."""
    if not writer.is_closing():
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def ask(door: tuple[str, int], what: str, token: str) -> Stream:
    """Make a request of the gateway; raises OSError unless it is granted."""
    reader, writer = await asyncio.open_connection(*door)
    writer.write(f"{what} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    try:
        if b" 200 " in await reader.readuntil(b"\r\n\r\n"):
            return reader, writer
    except EOFError:
        pass
    writer.close()
    raise ConnectionRefusedError(f"the gateway refuses {what}")


async def connect(stream: Stream, address: str, dial: Dial) -> None:
    """Serve a ``CONNECT``, whose head has been read, to an address such as ``10.1.1.2:80``."""
    writer = stream[1]
    try:
        ip, _, port = address.rpartition(":")
        other = await dial(ip, int(port))
    except (OSError, ValueError) as problem:
        writer.write(f"HTTP/1.1 502 Bad Gateway\r\n\r\n{problem}\n".encode())
        writer.close()
    else:
        writer.write(GRANTED)
        await join(stream, other)


class Forwarder:
    """Listens at addresses and passes each connection on to one of several, in turn."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._ports: dict[tuple[str, int], _Port] = {}

    async def apply(self, wanted: list) -> list[tuple[str, int, int]]:
        """Listen at these addresses and no others. Connections that exist live on.

        Args:
            wanted: ``[address, port, targets, seconds]`` each, where targets are
                ``[address, port]`` and a client keeps its target for so many seconds (0: the next
                one each time). Without a target a connection is refused.

        Returns:
            Addresses that could not be bound: address, port, number of the error.
        """
        chosen = {(ip, port): (targets, seconds) for ip, port, targets, seconds in wanted}
        for address in self._ports.keys() - chosen.keys():
            await self._ports.pop(address).close()
        failed = []
        for address, (targets, seconds) in chosen.items():
            port = self._ports.setdefault(address, _Port(self._dial))
            port.targets, port.seconds = targets, seconds
            try:
                await port.open(address)
            except OSError as problem:
                self._ports.pop(address)
                failed.append((*address, problem.errno))
        return failed


class _Port:
    """An address that is listened at, or only held while there is no target: it then refuses."""

    targets: list
    seconds: int

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._turn = itertools.count()
        self._kept: dict[str, tuple[list, float]] = {}

    async def open(self, address: tuple[str, int]) -> None:
        if self._socket and bool(self._server) == bool(self.targets):
            return
        await self.close()
        self._socket = socket.socket()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
            if self.targets:
                self._server = await asyncio.start_server(
                    self.take, sock=self._socket, backlog=BACKLOG
                )
        except OSError:
            self._socket.close()
            raise

    async def close(self) -> None:
        if self._server:
            asyncio.get_running_loop().remove_reader(self._socket)
            await asyncio.sleep(0)  # one that has just been accepted still needs the server
            self._server.close()
        elif self._socket:
            self._socket.close()
        self._socket = self._server = None

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            client = writer.get_extra_info("peername")[0]
            other = await self._dial(*self._choose(client))
        except (OSError, ZeroDivisionError):
            refuse(writer)
        else:
            await join((reader, writer), other)

    def _choose(self, client: str) -> list:
        now = time.monotonic()
        target, since = self._kept.get(client, (None, 0))
        if target not in self.targets or now - since > self.seconds:
            target = self.targets[next(self._turn) % len(self.targets)]
        if self.seconds:
            self._kept[client] = (target, now)
        return target


class Gateway:
    """What runs in the gateway container."""

    def __init__(self, octet: int, api_port: int, token: str) -> None:
        self._octet, self._token = octet, token
        self._api = (f"10.{octet}.127.1", api_port)
        self._lent: asyncio.Queue[Stream] = asyncio.Queue()
        self._forwarder = Forwarder(self._dial)
        self._resolver = dns.Resolver()

    async def run(self) -> None:
        """Serve until the container ends."""
        make_local(f"10.{self._octet}.128.0", 17)
        await self._resolver.serve(f"10.{self._octet}.128.10")
        server = await asyncio.start_server(self._serve, "0.0.0.0", DOOR, backlog=BACKLOG)
        await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, asyncio.LimitOverrunError, OSError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode(errors="replace").split()
            if not hmac.compare_digest(head[-1].encode(), self._token.encode()):
                writer.close()
            elif head[0] == "CONNECT":
                await connect((reader, writer), head[1], self._dial)
            elif head[0] == "LEND":
                self._lent.put_nowait((reader, writer))
            else:
                writer.write(GRANTED)
                await self._follow(reader)
                writer.close()

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        """Take tables, until there are no more."""
        while size := int.from_bytes(await reader.readexactly(4)):
            table = json.loads(await reader.readexactly(size))
            self._resolver.names = table["names"]
            for failed in await self._forwarder.apply(table["ports"]):
                print("cannot listen:", *failed, file=sys.stderr, flush=True)

    async def _dial(self, ip: str, port: int) -> Stream:
        if (ip, port) != self._api:
            return await asyncio.open_connection(ip, port)
        async with asyncio.timeout(LENT_PATIENCE):
            while (stream := await self._lent.get())[0].at_eof():
                stream[1].close()
        stream[1].write(GRANTED)
        return stream


def make_local(network: str, bits: int) -> None:
    """Make every address of a network this container's own: ``ip route add local … dev lo``."""
    local, loopback = 2, socket.if_nametoindex("lo")
    body = struct.pack("=8BI", socket.AF_INET, bits, 0, 0, 255, 3, 254, local, 0)
    body += struct.pack("=HH4s", 8, 1, socket.inet_aton(network))  # RTA_DST
    body += struct.pack("=HHI", 8, 4, loopback)  # RTA_OIF
    # RTM_NEWROUTE with NLM_F_REQUEST, NLM_F_ACK and NLM_F_CREATE
    head = struct.pack("=IHHII", 16 + len(body), 24, 0x405, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.send(head + body)
        (error,) = struct.unpack_from("=i", link.recv(CHUNK), 16)
        if error:
            raise OSError(-error, os.strerror(-error))


if __name__ == "__main__":
    asyncio.run(Gateway(int(sys.argv[1]), int(sys.argv[2]), os.environ["LAB_TOKEN"]).run())
