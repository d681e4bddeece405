"""The streams of a command or of a forwarded port, whatever protocol carries them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from helpers.cluster.agent.runtime import Exec

BLOCK = 32768  # bytes
MAX_WAITING = 8  # blocks that have arrived and wait for a reader
OUTPUTS = {1: "stdout", 2: "stderr"}
WAITING = ThreadPoolExecutor(512, "stream")  # threads are made only when all others wait


async def call(function: Callable, *arguments):
    """Call what blocks in a thread, and return what it returns."""
    return await asyncio.get_running_loop().run_in_executor(WAITING, function, *arguments)


class Stream:
    """Bytes in and bytes out; whoever is faster than the other side waits.

    Attributes:
        headers: what the client says about it.
    """

    def __init__(
        self, send: Callable[[bytes, bool], Awaitable], headers: dict[str, str] | None = None
    ) -> None:
        """Make one that sends by a function, which is told whether this is the end."""
        self.headers = headers or {}
        self._send = send
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = asyncio.Event()
        self._dropped = False

    async def put(self, data: bytes) -> None:
        """Take in what the client sent, or with no bytes the end, as soon as there is room."""
        while self._arrived.qsize() >= MAX_WAITING and not self._dropped:
            self._room.clear()
            await self._room.wait()
        if not self._dropped:
            self._arrived.put_nowait(data)

    async def read(self) -> bytes:
        """Return the next bytes from the client, or none at the end."""
        data = await self._arrived.get()
        self._room.set()
        return data

    async def write(self, data: bytes) -> None:
        """Send to the client; raises OSError if it has gone."""
        await self._send(data, False)

    async def finish(self) -> None:
        """Tell the client, if it is there, that no more will come."""
        with contextlib.suppress(OSError):
            await self._send(b"", True)

    def drop(self) -> None:
        """Throw away what comes from now on; whoever has read the rest finds the end."""
        self._dropped = True
        self._arrived.put_nowait(b"")
        self._room.set()


async def command(start: Callable[[], Exec], streams: dict[str, Stream], ends: bool) -> None:
    """Join a command to its streams, and say in the stream ``error`` how it ended.

    Args:
        start: starts it; called in a thread, as are the methods of what it returns.
        streams: ``stdin``, ``stdout``, ``stderr``, ``resize``: those wanted; and ``error``.
        ends: whether its exit code matters, as it does not to those who only attach.
    """
    starting, pumps = WAITING.submit(start), []
    try:
        running = await asyncio.wrap_future(starting)
        for name, pump in (("stdin", _send_input), ("resize", _resize)):
            if name in streams:
                pumps.append(asyncio.create_task(pump(streams[name], running)))
        while (said := await call(running.read)) is not None:
            if OUTPUTS[said[0]] in streams:
                await streams[OUTPUTS[said[0]]].write(said[1])
        status = _status(await call(running.exit_code) if ends else 0)
    except Exception as problem:  # of whatever runs the container: the client must hear of it
        status = {"status": "Failure", "reason": "InternalError", "message": str(problem)}
    finally:
        for pump in pumps:
            pump.cancel()
        starting.add_done_callback(lambda done: WAITING.submit(_close, done))
    for stream in streams.values():
        stream.drop()
    with contextlib.suppress(OSError):
        await streams["error"].write(json.dumps({"metadata": {}, **status}).encode())
    for stream in streams.values():
        await stream.finish()


def _status(code: int) -> dict:
    if not code:
        return {"status": "Success"}
    return {
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with exit code {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def _send_input(stream: Stream, running: Exec) -> None:
    with contextlib.suppress(OSError):  # the command reads no more
        while data := await stream.read():
            await call(running.write, data)
        await call(running.close_stdin)
    stream.drop()


async def _resize(stream: Stream, running: Exec) -> None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        while data := await stream.read():
            size = json.loads(data)
            await call(running.resize, size["Width"], size["Height"])
    stream.drop()


def _close(started: Future) -> None:
    if not started.cancelled() and not started.exception():
        started.result().close()


async def forward(data: Stream, error: Stream, egress: Path, pod: dict, port: int) -> None:
    """Join a stream to a port of a pod until either side ends.

    Args:
        data: what is sent and received.
        error: is told why the port cannot be reached.
        egress: the socket of whoever reaches pods.
        pod: the pod.
        port: the port.
    """
    try:
        reader, writer = await _dial(egress, pod.get("status", {}).get("podIP", ""), port)
        sending = asyncio.create_task(_send(data, writer))
        try:
            while block := await reader.read(BLOCK):
                await data.write(block)
        finally:
            sending.cancel()
            writer.close()
    except (OSError, EOFError) as problem:
        name = pod["metadata"]["name"]
        with contextlib.suppress(OSError):
            await error.write(f"error forwarding port {port} to pod {name}: {problem}".encode())
    data.drop()
    await data.finish()
    await error.finish()


async def _send(data: Stream, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while block := await data.read():
            writer.write(block)
            await writer.drain()
        writer.write_eof()


async def _dial(egress: Path, address: str, port: int):
    reader, writer = await asyncio.open_unix_connection(egress)
    target = f"{address}:{port}"
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    answer = (await reader.readuntil(b"\r\n\r\n")).decode(errors="replace")
    if answer.split(" ")[1] != "200":
        writer.close()
        raise ConnectionRefusedError(f"{target}: {answer.splitlines()[0]}")
    return reader, writer
