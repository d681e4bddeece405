"""What a node's API answers at once: logs, and who may ask."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler

from helpers.cluster.agent.runtime import Runtime
from helpers.cluster.agent.streams import WAITING, call


@dataclass(frozen=True)
class Node:
    """What the handlers need: who runs containers, which pods there are, and the way to them."""

    runtime: Runtime
    find: Callable[[str, str], dict | None]
    egress: Path


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
            WAITING.submit(_close, lines)

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
