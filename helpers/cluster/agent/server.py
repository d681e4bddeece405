"""The HTTPS API of a node, which the API server calls for logs, commands and forwarded ports."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from helpers.cluster.agent import spdy, streams
from helpers.cluster.agent.runtime import Runtime, Settings
from helpers.cluster.agent.streams import Stream, call

PORT = 10250
CHANNELS = ("stdin", "stdout", "stderr", "error", "resize")  # by their numbers in a WebSocket
CLOSE = 255  # the channel of v5 that says which other one ends
MAX_MESSAGE, MAX_HEADER = 32 << 20, 1 << 20  # bytes, as API servers have it
TRUE = ("1", "true")
SWITCH = (
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    "X-Stream-Protocol-Version: {}\r\n\r\n"
)
PATIENCE = 5  # seconds until a client that has been told everything is left


@dataclass(frozen=True)
class Node:
    """What the handlers need: who runs containers, which pods there are, and the way to them."""

    runtime: Runtime
    find: Callable[[str, str], dict | None]
    egress: Path


def serve(
    folder: Path, settings: Settings, runtime: Runtime, find: Callable[[str, str], dict | None]
) -> None:
    """Serve a node's API on port 10250 of its address, for ever.

    Args:
        folder: the cluster's: with ``ca.pem``, ``egress.sock`` and ``nodes/NODE/server.pem``
            and ``server.key``. Only clients whose certificate is of that authority and names
            the group ``system:masters`` are served.
        settings: the node's.
        runtime: runs its containers.
        find: returns the pod of a namespace and a name as the API has it (its ``metadata`` and
            the ``status`` last reported), or None.

    Raises:
        OSError: the port is taken, or a file is missing.
    """
    own = folder / "nodes" / settings.name
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(own / "server.pem", own / "server.key")
    node = {"node": Node(runtime, find, folder / "egress.sock")}
    name = "([^/]+)"
    pod = f"{name}/{name}(?:/[^/]+)?"  # the namespace, the pod, and perhaps its uid
    routes = [
        ("/healthz", Health, node),
        (f"/containerLogs/{name}/{name}/{name}", Logs, node),
        (f"/(exec|attach)/{pod}/{name}", Command, node),
        (f"/(portForward)/{pod}", Forward, node),
    ]

    async def listen() -> None:
        application = Application(routes, websocket_max_message_size=MAX_MESSAGE)
        server = HTTPServer(application, ssl_options=context, max_header_size=MAX_HEADER)
        server.listen(PORT, settings.address)
        await asyncio.Event().wait()

    asyncio.run(listen())


class Handler(RequestHandler):
    """What all routes share."""

    def initialize(self, node: Node) -> None:
        """Keep what is given with the route."""
        self.node = node
        self.query = parse_qs(self.request.query, keep_blank_values=True)

    def prepare(self) -> None:
        """Refuse whoever is not the API server or an administrator."""
        subject = self.request.get_ssl_certificate()["subject"]
        if (("organizationName", "system:masters"),) not in subject:
            raise HTTPError(403, "Only the group system:masters may use a node's API.")

    def write_error(self, status_code: int, **facts) -> None:
        """Say in one line of plain text what is wrong."""
        problem = facts["exc_info"][1]
        self.set_header("Content-Type", "text/plain")
        known = isinstance(problem, HTTPError) and problem.log_message
        self.finish(problem.log_message % problem.args if known else str(problem))

    def asked(self, name: str) -> str:
        """Return a parameter of the query, or an empty text."""
        return self.query.get(name, [""])[0]

    def pod(self, namespace: str, name: str) -> dict:
        """Return a pod of this node."""
        if pod := self.node.find(namespace, name):
            return pod
        raise HTTPError(404, f'pod "{name}" not found')

    async def runs(self, pod: dict, container: str) -> list[str]:
        """Return the ids of a container of a pod, the newest last."""
        found = await call(self.node.runtime.containers, pod["metadata"]["uid"])
        return [one for _, one in found.get(container, [])]


class Health(Handler):
    """Whether the node answers."""

    def get(self) -> None:
        """Answer."""
        self.finish("ok")


class Logs(Handler):
    """What a container has written."""

    reading: asyncio.Task | None = None

    async def get(self, namespace: str, name: str, container: str) -> None:
        """Send it, and with ``follow`` what it goes on to write until it ends."""
        pod = self.pod(namespace, name)
        options = self._options()
        statuses = pod.get("status", {}).get("containerStatuses", [])
        state = next((one["state"] for one in statuses if one["name"] == container), {})
        runs = await self.runs(pod, container)
        if self.asked("previous") == "true" and "waiting" not in state:
            runs = runs[:-1]
        if not runs and self.asked("previous") == "true":
            message = f'previous terminated container "{container}" in pod "{name}" not found'
            raise HTTPError(400, message)
        if not runs:
            reason = state.get("waiting", {}).get("reason", "ContainerCreating")
            message = f'container "{container}" in pod "{name}" is waiting to start: {reason}'
            raise HTTPError(400, message)
        self.set_header("Content-Type", "text/plain")
        self.reading = asyncio.ensure_future(self._send(runs[-1], options))
        with contextlib.suppress(asyncio.CancelledError, StreamClosedError):
            await self.reading

    def on_connection_close(self) -> None:
        """Stop following."""
        if self.reading:
            self.reading.cancel()

    async def _send(self, container: str, options: dict) -> None:
        lines = await call(partial(self.node.runtime.logs, container, **options))
        try:
            await self.flush()
            while (block := await call(next, lines, None)) is not None:
                if block:
                    self.write(block)
                    await self.flush()
        finally:
            streams.WAITING.submit(_close, lines)

    def _options(self) -> dict:
        try:
            options = {name: self.asked(name) == "true" for name in ("follow", "timestamps")}
            if tail := self.asked("tailLines"):
                options["tail"] = int(tail)
            if limit := self.asked("limitBytes"):
                options["limit"] = int(limit)
            if seconds := self.asked("sinceSeconds"):
                options["since"] = time.time() - int(seconds)
            elif since := self.asked("sinceTime"):
                options["since"] = datetime.fromisoformat(since).timestamp()
            return options
        except ValueError as problem:
            raise HTTPError(400, f"{problem}") from None


def _close(lines) -> None:
    with contextlib.suppress(AttributeError, ValueError):  # a generator that is just running
        lines.close()


class Streaming(Handler, WebSocketHandler):
    """A request that becomes a connection of several streams, by WebSocket or by SPDY."""

    websockets: tuple[str, ...]
    spdy_protocol: str

    async def get(self, kind: str, namespace: str, name: str, container: str = "") -> None:
        """Agree on a protocol, and go on with it."""
        self.tasks: set[asyncio.Task] = set()
        self.channels: dict[int, Stream] = {}
        self.session: spdy.Session | None = None
        self.found = self.pod(namespace, name)
        await self.check(kind, container)
        upgrade = self.request.headers.get("Upgrade", "").lower()
        if upgrade not in ("websocket", "spdy/3.1"):
            raise HTTPError(400, "Upgrade request required")
        header, known = "X-Stream-Protocol-Version", (self.spdy_protocol,)
        if upgrade == "websocket":
            header, known = "Sec-WebSocket-Protocol", self.websockets
        offered = self.request.headers.get(header, "").replace(" ", "").split(",")
        if not set(known) & set(offered):
            raise HTTPError(403, f"Only these protocols are spoken here: {', '.join(known)}")
        if upgrade == "websocket":
            await WebSocketHandler.get(self)
        else:
            await self._speak_spdy()

    post = get

    def check_origin(self, origin: str) -> bool:
        """Allow any: a certificate has been shown."""
        return True

    def select_subprotocol(self, offered: list[str]) -> str | None:
        """Take the best that is offered."""
        return next((one for one in self.websockets if one in offered), None)

    async def open(self, *_) -> None:
        """Begin with a WebSocket."""
        if self.selected_subprotocol.startswith("SPDY/3.1+"):
            self.session = spdy.Session(self._send_message, self.opened)
        else:
            await self.begin()

    async def on_message(self, message: str | bytes) -> None:
        """Pass on what comes by WebSocket; the next is not read before there is room."""
        data = message.encode() if isinstance(message, str) else message
        try:
            if self.session:
                return await self.session.feed(data)
            if "base64" in self.selected_subprotocol:
                data = bytes([int(data[:1])]) + base64.b64decode(data[1:])
            number, data = (data[1], b"") if data[0] == CLOSE else (data[0], data[1:])
            if number in self.channels and (data or message[0] == CLOSE):
                await self.channels[number].put(data)
        except (ValueError, IndexError) as problem:
            self.close(1002, str(problem))

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
            if "base64" in self.selected_subprotocol:
                await self._send_message(str(number) + base64.b64encode(data).decode())
            elif not end:  # there is no word for it
                await self._send_message(bytes([number]) + data)

        self.channels[number] = Stream(send)
        return self.channels[number]

    def hang_up(self) -> None:
        """End the connection once the client has had the time to read all and to leave."""
        if self.session:
            asyncio.get_running_loop().call_later(PATIENCE, self.connection.close)
        else:
            self.close(1000)

    async def _send_message(self, message: str | bytes) -> None:
        try:
            await self.write_message(message, binary=isinstance(message, bytes))
        except WebSocketClosedError:
            raise ConnectionResetError("The client has left.") from None

    async def _speak_spdy(self) -> None:
        self.connection = self.detach()
        self.session = spdy.Session(self.connection.write, self.opened)
        self.connection.set_close_callback(self.on_close)
        with contextlib.suppress(StreamClosedError, ValueError):
            await self.connection.write(SWITCH.format(self.spdy_protocol).encode())
            while True:
                data = await self.connection.read_bytes(streams.BLOCK, partial=True)
                await self.session.feed(data)
        self.connection.close()


class Command(Streaming):
    """A command in a container, or the container's own process."""

    websockets = ("v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io")
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
