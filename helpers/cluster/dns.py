"""The cluster's DNS: names of Services and pods; all else is asked of the machine's resolver.

Standard library only: it also runs alone in the gateway container.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
from pathlib import Path

ZONE = "cluster.local"
A, CNAME, SRV = 1, 5, 33
FORMAT_ERROR, FAILURE, NO_NAME = 1, 2, 3
TTL = 5
PATIENCE = 5  # seconds that another resolver gets
POD = re.compile(rf"(\d+)-(\d+)-(\d+)-(\d+)\.[^.]+\.pod\.{re.escape(ZONE)}")
QUESTION = b"\xc0\x0c"  # a name that points at the one in the question


class Resolver:
    """Answers from a table of names.

    Attributes:
        names: name to its records by type: ``{"A": [address, …], "SRV": [[port, name], …],
            "CNAME": name}``.
    """

    def __init__(self) -> None:
        self.names: dict[str, dict] = {}
        lines = Path("/etc/resolv.conf").read_text().splitlines()
        found = [line.split()[1] for line in lines if re.match(r"nameserver\s+[\d.]+", line)]
        self._upstream = found[0] if found else ""

    async def serve(self, address: str) -> None:
        """Answer at port 53 of an address, over UDP and TCP.

        Raises:
            OSError: the port cannot be bound.
        """
        loop = asyncio.get_running_loop()
        await asyncio.start_server(self._stream, address, 53)
        await loop.create_datagram_endpoint(lambda: _Datagrams(self), (address, 53))

    async def answer(self, message: bytes, stream: bool = False) -> bytes:
        """Return the answer to a message, whatever that is; empty if it deserves none.

        Args:
            message: what somebody has sent.
            stream: whether it came over TCP, where answers may be long.
        """
        try:
            name, kind, end = question(message)
        except (ValueError, IndexError, struct.error):
            known = len(message) >= 12 and not message[2] & 0x80
            return _reply(message[:12], FORMAT_ERROR) if known else b""
        if name != ZONE and not name.endswith(f".{ZONE}"):
            return await self._ask(message, stream) or _reply(message[:end], FAILURE)
        found = self._find(name)
        if found is None:
            return _reply(message[:end], NO_NAME)
        if "CNAME" in found:
            records = await self._alias(found["CNAME"], kind)
        else:
            records = _records(QUESTION, found, kind)
        reply = _reply(message[:end], 0, records)
        limit = 65535 if stream else 1232 if message[10:12] != b"\0\0" else 512
        return reply if len(reply) <= limit else _reply(message[:end], 0, cut=True)

    def _find(self, name: str) -> dict | None:
        if (found := self.names.get(name)) is not None:
            return found
        if pod := POD.fullmatch(name):
            return {"A": [".".join(pod.groups())]} if max(map(int, pod.groups())) < 256 else None
        return {} if any(known.endswith(f".{name}") for known in self.names) else None

    async def _alias(self, target: str, kind: int) -> list[bytes]:
        """Return a CNAME record and, since programs look no further, what it leads to."""
        target = target.rstrip(".").lower()
        found, name = self.names.get(target), _encode(target)
        if found is None and kind == A:
            query = struct.pack("!6H", random.getrandbits(16), 0x100, 1, 0, 0, 0)
            query += name + struct.pack("!2H", A, 1)
            found = {"A": addresses(await self._ask(query, True))}
        return [_record(QUESTION, CNAME, name), *_records(name, found or {}, kind)]

    async def _ask(self, message: bytes, stream: bool) -> bytes:
        """Return another resolver's answer, or nothing."""
        try:
            async with asyncio.timeout(PATIENCE):
                if stream:
                    reader, writer = await asyncio.open_connection(self._upstream, 53)
                    with contextlib.closing(writer):
                        writer.write(struct.pack("!H", len(message)) + message)
                        return await _read(reader)
                loop = asyncio.get_running_loop()
                with socket.socket(type=socket.SOCK_DGRAM) as udp:
                    udp.setblocking(False)
                    await loop.sock_connect(udp, (self._upstream, 53))
                    await loop.sock_sendall(udp, message)
                    return await loop.sock_recv(udp, 65535)
        except (OSError, EOFError):
            return b""

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, EOFError):
            while reply := await self.answer(await _read(reader), stream=True):
                writer.write(struct.pack("!H", len(reply)) + reply)
                await writer.drain()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._tasks: set[asyncio.Task] = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, sender: tuple) -> None:
        task = asyncio.create_task(self._answer(data, sender))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, sender: tuple) -> None:
        if reply := await self._resolver.answer(data):
            self._transport.sendto(reply, sender)


def question(message: bytes) -> tuple[str, int, int]:
    """Return the name asked for in lower case, the type, and where the question ends.

    Raises:
        ValueError, IndexError, struct.error: it is not a query with one question.
    """
    _, flags, questions, *_ = struct.unpack_from("!6H", message)
    if flags & 0xF800 or questions != 1:
        raise ValueError("not a query")
    labels, at = [], 12
    while size := message[at]:
        if size > 63:
            raise ValueError("not a label")
        labels.append(message[at + 1 : at + 1 + size].decode("ascii").lower())
        at += 1 + size
    kind, _ = struct.unpack_from("!2H", message, at + 1)
    return ".".join(labels), kind, at + 5


def addresses(message: bytes) -> list[str]:
    """Return the IPv4 addresses in an answer; none if it cannot be read."""
    found = []
    try:
        _, _, questions, answers, *_ = struct.unpack_from("!6H", message)
        at = 12
        for number in range(questions + answers):
            while 0 < message[at] < 64:
                at += 1 + message[at]
            at += 2 if message[at] else 1
            if number < questions:
                at += 4
                continue
            kind, _, _, size = struct.unpack_from("!2HIH", message, at)
            if kind == A and size == 4:
                found.append(socket.inet_ntoa(message[at + 10 : at + 14]))
            at += 10 + size
    except (IndexError, struct.error, OSError):
        return []
    return found


def _records(name: bytes, found: dict, kind: int) -> list[bytes]:
    records = []
    if kind == A:
        records = [_record(name, A, socket.inet_aton(ip)) for ip in found.get("A", [])]
    elif kind == SRV:
        for port, target in found.get("SRV", []):
            records.append(_record(name, SRV, struct.pack("!3H", 0, 100, port) + _encode(target)))
    return random.sample(records, len(records))


def _record(name: bytes, kind: int, data: bytes) -> bytes:
    return name + struct.pack("!2HIH", kind, 1, TTL, len(data)) + data


def _encode(name: str) -> bytes:
    labels = [label.encode()[:63] for label in name.split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _reply(query: bytes, code: int, records: list[bytes] = (), cut: bool = False) -> bytes:
    """Return an answer to a query that has been cut off behind its question."""
    ident, flags = struct.unpack_from("!2H", query)
    flags = 0x8480 | flags & 0x7900 | (0x200 if cut else 0) | code
    head = struct.pack("!6H", ident, flags, len(query) > 12, len(records), 0, 0)
    return head + query[12:] + b"".join(records)


async def _read(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack("!H", await reader.readexactly(2))
    return await reader.readexactly(size)
