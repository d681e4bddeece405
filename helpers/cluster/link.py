"""This machine's side of the gateway: it is started, fed, and lent connections to the API."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from helpers.cluster.gateway import DOOR, Stream, ask, join, refuse

LENT = 8  # connections to the API server that wait in the gateway
PATIENCE = 10  # seconds until the program in a new container must answer


class Link:
    """The gateway of one cluster, which is started again whenever it is gone."""

    def __init__(self, folder: Path, settings: dict) -> None:
        """Take the cluster's folder and what its ``cluster.json`` says."""
        self._folder, self._settings = folder, settings
        self._token = (folder / "gateway.token").read_text()
        self._inner = (f"10.{settings['octet']}.127.1", DOOR)
        self._door = ("127.0.0.1", 0)
        self._direct = False
        self._feed: asyncio.StreamWriter | None = None
        self._table = b""

    def send(self, table: bytes) -> None:
        """Let the gateway have a new table (JSON), now or when it is there."""
        if table != self._table:
            self._table = table
            self._write()

    async def dial(self, ip: str, port: int) -> Stream:
        """Connect to an address in the cluster's network; raises OSError."""
        if self._direct:
            return await asyncio.open_connection(ip, port)
        return await ask(self._door, f"CONNECT {ip}:{port}", self._token)

    async def keep(self) -> None:
        """Keep the gateway running and fed, for ever."""
        lending = [asyncio.create_task(self._lend()) for _ in range(LENT)]
        while lending:
            try:
                await self._meet()
            except (OSError, ValueError) as problem:
                print("gateway:", problem, file=sys.stderr, flush=True)
            self._feed = None
            await asyncio.sleep(0.5)

    async def _meet(self) -> None:
        """Start the gateway if need be, feed it, and return when it is gone."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "ignore:::runpy", "-m", "helpers.cluster.bridge"),
            str(self._folder),
            stdout=asyncio.subprocess.PIPE,
        )
        *_, port = (await child.communicate())[0].split()
        self._direct = self._settings["rung"] == "docker" and await _reachable(*self._inner)
        self._door = self._inner if self._direct else ("127.0.0.1", int(port))
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                reader, self._feed = await ask(self._door, "TABLE", self._token)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)
        self._write()
        await reader.read()

    def _write(self) -> None:
        if self._feed and self._table:
            self._feed.write(len(self._table).to_bytes(4) + self._table)

    async def _lend(self) -> None:
        """Let the gateway have a connection to the API server whenever it takes one."""
        used = set()
        while True:
            try:
                stream = await ask(self._door, "LEND", self._token)
            except OSError:
                await asyncio.sleep(0.5)
            else:
                task = asyncio.create_task(self._to_api(stream))
                used.add(task)
                task.add_done_callback(used.discard)

    async def _to_api(self, stream: Stream) -> None:
        try:
            api = await asyncio.open_connection("127.0.0.1", self._settings["port"])
        except OSError:
            refuse(stream[1])
        else:
            await join(stream, api)


async def _reachable(ip: str, port: int) -> bool:
    """Say whether this machine is in the Docker network itself (on Linux it is)."""
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(ip, port)
        writer.close()
    except OSError as problem:
        return isinstance(problem, ConnectionRefusedError)
    return True
