"""Requests to a node that become a connection of several streams, by WebSocket or by SPDY."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from functools import partial

from tornado.iostream import IOStream, StreamClosedError
from tornado.web import HTTPError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from helpers.cluster.agent import spdy, streams
from helpers.cluster.agent.handlers import Handler
from helpers.cluster.agent.streams import Stream, call

CHANNELS = ("stdin", "stdout", "stderr", "error", "resize")  # by their numbers in a WebSocket
CLOSE = 255  # the channel of v5 that says which other one ends
TRUE = ("1", "true")
SWITCH = (
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    "X-Stream-Protocol-Version: {}\r\n\r\n"
)
PATIENCE = 5  # seconds until a client that has been told everything is left
BEAT = 5  # seconds between two looks whether the client is still there


class Streaming(Handler, WebSocketHandler):
    """Agrees on a protocol, and carries streams by it."""

    websockets: tuple[str, ...]
    spdy_protocol: str

    async def get(self, kind: str, namespace: str, name: str, container: str = "") -> None:
        """Agree on a protocol, and go on with it."""
        self.tasks: set[asyncio.Task] = set()
        self.channels: dict[int, Stream] = {}
        self.session: spdy.Session | None = None
        self.connection: IOStream | None = None
        self.found = self.pod(namespace, name)
        await self.check(kind, container)
        upgrade = self.request.headers.get("Upgrade", "").lower()
        if upgrade == "websocket":
            self._need("Sec-WebSocket-Protocol", *self.websockets)
            await WebSocketHandler.get(self)
        elif upgrade == "spdy/3.1":
            self._need("X-Stream-Protocol-Version", self.spdy_protocol)
            await self._speak_spdy()
        else:
            raise HTTPError(400, "Upgrade request required")

    post = get

    def check_origin(self, origin: str) -> bool:
        """Allow any: a certificate has been shown."""
        return True

    def select_subprotocol(self, offered: list[str]) -> str | None:
        """Take the best that is offered."""
        return next((one for one in self.websockets if one in offered), None)

    async def open(self, *_) -> None:
        """Begin with a WebSocket, which may itself carry SPDY."""
        self.start(self._watch())
        if self.selected_subprotocol.startswith("SPDY/3.1+"):
            self.session = spdy.Session(self._send, self.opened)
        else:
            await self.begin()

    async def on_message(self, message: str | bytes) -> None:
        """Pass on what comes by WebSocket; the next is not read before there is room."""
        data = message.encode() if isinstance(message, str) else message
        try:
            if self.session:
                await self.session.feed(data)
            elif data[:1] == bytes([CLOSE]):
                await self._pass_on(data[1], b"")
            elif len(data) > 1:
                await self._pass_on(data[0], data[1:])
        except (ValueError, IndexError, OSError):
            self.close(1002)

    def on_close(self) -> None:
        """Stop everything: the client has left."""
        for task in self.tasks:
            task.cancel()
        for stream in self.channels.values():
            stream.drop()
        if self.session:
            self.session.end()

    def start(self, work: Coroutine) -> None:
        """Do work as long as the client is there."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def channel(self, number: int) -> Stream:
        """Return a new channel of the WebSocket."""

        async def send(data: bytes, end: bool) -> None:
            if not end:  # there is no word for it
                await self._send(bytes([number]) + data)

        self.channels[number] = Stream(send)
        return self.channels[number]

    def hang_up(self) -> None:
        """End the connection once the client has had the time to read all and to leave."""
        if self.connection:
            asyncio.get_running_loop().call_later(PATIENCE, self.connection.close)
        else:
            self.close(1000)

    def _need(self, header: str, *known: str) -> None:
        offered = self.request.headers.get(header, "").replace(" ", "").split(",")
        if not set(known) & set(offered):
            raise HTTPError(403, f"Only these protocols are spoken here: {', '.join(known)}")

    async def _pass_on(self, number: int, data: bytes) -> None:
        if number in self.channels:
            await self.channels[number].put(data)

    async def _send(self, data: bytes) -> None:
        try:
            await self.write_message(data, binary=True)
        except WebSocketClosedError:
            raise ConnectionResetError("The client has left.") from None

    async def _watch(self) -> None:
        """Notice that the client has left, even while nothing it sent can be read."""
        with contextlib.suppress(OSError, WebSocketClosedError):
            while True:
                await asyncio.sleep(BEAT)
                if self.connection:
                    await self.session.ping()
                else:
                    self.ping()
        self.on_close()

    async def _speak_spdy(self) -> None:
        self.connection = self.detach()
        self.session = spdy.Session(self.connection.write, self.opened)
        self.connection.set_close_callback(self.on_close)
        self.start(self._watch())
        with contextlib.suppress(StreamClosedError, ValueError):
            await self.connection.write(SWITCH.format(self.spdy_protocol).encode())
            while True:
                data = await self.connection.read_bytes(streams.BLOCK, partial=True)
                await self.session.feed(data)
        self.connection.close()


class Command(Streaming):
    """A command in a container, or the container's own process."""

    websockets = ("v5.channel.k8s.io", "v4.channel.k8s.io")
    spdy_protocol = "v4.channel.k8s.io"

    async def check(self, kind: str, container: str) -> None:
        """See to it that the container runs, and to what is wanted of it."""
        runs, runtime = await self.runs(self.found, container), self.node.runtime
        if not runs or not (await call(runtime.state, runs[-1])).running:
            raise HTTPError(500, f'container not found ("{container}")')
        parameters = {"stdin": "input", "stdout": "output", "stderr": "error"}
        self.wanted = {one for one, asked in parameters.items() if self.asked(asked) in TRUE}
        if not self.wanted:
            raise HTTPError(400, "you must specify at least 1 of stdin, stdout, stderr")
        tty, stdin = self.asked("tty") in TRUE, "stdin" in self.wanted
        if tty:
            self.wanted = self.wanted - {"stderr"} | {"resize"}
        self.wanted.add("error")
        self.ends, self.streams = kind == "exec", {}
        join = partial(runtime.attach, runs[-1])
        if self.ends:
            join = partial(runtime.exec, runs[-1], self.query.get("command", []))
        self.join = partial(join, stdin=stdin, tty=tty)

    async def begin(self) -> None:
        """Run it on the channels of a WebSocket."""
        for number, name in enumerate(CHANNELS):
            if name in self.wanted:
                self.streams[name] = self.channel(number)
        output = next(name for name in CHANNELS[1:] if name in self.wanted)
        await self.streams[output].write(b"")  # says that the connection stands
        self.start(self._run())

    def opened(self, stream: Stream) -> None:
        """Run it as soon as all streams of SPDY are there."""
        self.streams[stream.headers.get("streamtype")] = stream
        if self.wanted == self.streams.keys():
            self.start(self._run())

    async def _run(self) -> None:
        await streams.command(self.join, self.streams, self.ends)
        self.hang_up()


class Forward(Streaming):
    """Ports of a pod."""

    websockets = ("SPDY/3.1+portforward.k8s.io", "v4.channel.k8s.io")
    spdy_protocol = "portforward.k8s.io"

    async def check(self, *_) -> None:
        """Read which ports are wanted, where this is said in advance."""
        self.pairs: dict[str | None, dict[str | None, Stream]] = {}
        try:
            self.ports = [
                int(one) for text in self.query.get("port", []) for one in text.split(",")
            ]
        except ValueError as problem:
            raise HTTPError(400, str(problem)) from None

    async def begin(self) -> None:
        """Join each port to two channels of a WebSocket, which first say its number."""
        pairs = []
        for index, port in enumerate(self.ports):
            pairs.append((self.channel(2 * index), self.channel(2 * index + 1), port))
            for channel in pairs[-1][:2]:
                await channel.write(port.to_bytes(2, "little"))

        async def join() -> None:
            await asyncio.gather(*(self._join(*pair) for pair in pairs))
            self.hang_up()

        self.start(join())

    def opened(self, stream: Stream) -> None:
        """Join a port when both streams of a request are there."""
        said = stream.headers
        pair = self.pairs.setdefault(said.get("requestid"), {})
        pair[said.get("streamtype")] = stream
        if {"data", "error"} <= pair.keys():
            del self.pairs[said.get("requestid")]
            self.start(self._join(pair["data"], pair["error"], int(said.get("port", ""))))

    async def _join(self, data: Stream, error: Stream, port: int) -> None:
        await streams.forward(data, error, self.node.egress, self.found, port)
