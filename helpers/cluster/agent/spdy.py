"""SPDY/3.1 on the side of a server: the streams in which ``kubectl`` and API servers talk to nodes.

Only what they use is here. Their library (spdystream) neither heeds windows nor grants any, so what
we send is held back by the connection alone; what we receive is acknowledged for those who count.
The dictionary ``spdy.dict`` is that of the SPDY/3 specification, section 2.6.10.1.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from helpers.cluster.agent.streams import Stream

DICTIONARY = (Path(__file__).parent / "spdy.dict").read_bytes()
CONTROL, VERSION, FIN = 0x80000000, 3, 1
SYN_STREAM, SYN_REPLY, RST_STREAM, PING, HEADERS, WINDOW_UPDATE = 1, 2, 3, 6, 8, 9
MAX_HEADERS = 1 << 16


class Session:
    """One connection and its streams, whatever carries its bytes."""

    def __init__(
        self, write: Callable[[bytes], Awaitable], opened: Callable[[Stream], None]
    ) -> None:
        """Begin a session.

        Args:
            write: sends bytes, and is done when there is room for more.
            opened: called with each stream that the client opens; may raise ValueError.
        """
        self._write, self._opened = write, opened
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._left = bytearray()
        self._streams: dict[int, Stream] = {}
        self._half_closed: set[int] = set()

    async def feed(self, data: bytes) -> None:
        """Take in what has arrived, wherever it is split, and wait while a stream is full.

        Raises:
            ValueError: that is no SPDY/3; the connection is of no more use.
        """
        self._left += data
        while len(self._left) >= 8:
            size = 8 + int.from_bytes(self._left[5:8])
            if len(self._left) < size:
                break
            frame = bytes(self._left[:size])
            del self._left[:size]
            try:
                await self._frame(int.from_bytes(frame[:4]), frame[4], frame[8:])
            except (zlib.error, struct.error) as problem:
                raise ValueError(f"A frame is broken: {problem}") from None

    def end(self) -> None:
        """Let all readers find the end of their streams: the connection is gone."""
        for stream in self._streams.values():
            stream.drop()
        self._streams.clear()

    async def ping(self) -> None:
        """Ask for a sign of life; the answer is not waited for."""
        await self._control(PING, struct.pack(">I", 2))

    async def _frame(self, head: int, flags: int, body: bytes) -> None:
        if not head & CONTROL:
            return await self._data(head, body, bool(flags & FIN))
        if head >> 16 & 0x7FFF != VERSION:
            raise ValueError("That is another version of SPDY.")
        kind = head & 0xFFFF
        if kind == SYN_STREAM:
            await self._open(body, bool(flags & FIN))
        elif kind == HEADERS:
            self._headers(body[4:])  # they share one compression with all others
        elif kind == RST_STREAM:
            (number,) = struct.unpack_from(">I", body)
            if stream := self._streams.pop(number, None):
                stream.drop()
        elif kind == PING and len(body) == 4 and body[3] & 1:
            await self._control(PING, body)

    async def _open(self, body: bytes, last: bool) -> None:
        number = struct.unpack_from(">I", body)[0] & ~CONTROL
        if number in self._streams or not number & 1:
            raise ValueError(f"A client cannot open stream {number}.")

        async def send(data: bytes, end: bool) -> None:
            if number not in self._streams:
                raise ConnectionResetError("The client has left the stream.")
            head = struct.pack(">II", number, end << 24 | len(data))
            if end:
                self._close_half(number)
            await self._write(head + data)

        stream = Stream(send, self._headers(body[10:]))
        self._streams[number] = stream
        none = self._deflate.compress(bytes(4)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        await self._control(SYN_REPLY, struct.pack(">I", number) + none)
        self._opened(stream)
        if last:
            await self._data(number, b"", True)

    async def _data(self, number: int, data: bytes, last: bool) -> None:
        stream = self._streams.get(number)
        if stream and data:
            await stream.put(data)
            for window in (0, number):
                await self._control(WINDOW_UPDATE, struct.pack(">II", window, len(data)))
        if stream and last:
            await stream.put(b"")
            self._close_half(number)

    def _close_half(self, number: int) -> None:
        if number in self._half_closed:
            self._half_closed.discard(number)
            self._streams.pop(number, None)
        else:
            self._half_closed.add(number)

    async def _control(self, kind: int, body: bytes) -> None:
        head = struct.pack(">II", CONTROL | VERSION << 16 | kind, len(body))
        await self._write(head + body)

    def _headers(self, raw: bytes) -> dict[str, str]:
        plain = io.BytesIO(self._inflate.decompress(raw, MAX_HEADERS))
        if self._inflate.unconsumed_tail:
            raise ValueError("These headers are too long.")

        def number() -> int:
            return struct.unpack(">I", plain.read(4))[0]

        return {
            plain.read(number()).decode().lower(): plain.read(number()).decode()
            for _ in range(number())
        }
