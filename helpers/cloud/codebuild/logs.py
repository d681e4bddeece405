"""A build's log: lines to CloudWatch Logs while it runs, written as the build's role."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from botocore.exceptions import ClientError

from helpers.cloud.stacks.api import Caller

EVERY = 0.2  # seconds between two writings


class Log:
    """A log stream; without a group it goes nowhere."""

    def __init__(self, call: Caller, group: str, stream: str) -> None:
        """Write nothing yet."""
        self.call, self.group, self.stream = call, group, stream
        self.secrets: list[str] = []
        self._lines: list[tuple[int, str]] = []
        self._rest, self._last = b"", 0.0

    def open(self) -> None:
        """Make the stream, and the group if there is none.

        Raises:
            ClientError: the role may not.
        """
        where = {"logGroupName": self.group, "logStreamName": self.stream}
        if not self.group:
            return
        try:
            self.call("logs", "CreateLogStream", where)
        except ClientError as problem:
            if problem.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            try:
                self.call("logs", "CreateLogGroup", {"logGroupName": self.group})
            except ClientError as refused:  # another build may have been quicker
                if refused.response["Error"]["Code"] != "ResourceAlreadyExistsException":
                    raise
            self.call("logs", "CreateLogStream", where)

    def say(self, text: str) -> None:
        """Add a line of the build's own."""
        self.hear(b"", end=True)
        now = datetime.now(UTC).strftime("%Y/%m/%d %H:%M:%S.%f")
        self._add(f"[Container] {now} {text}")
        self.hear(b"")

    def hear(self, text: bytes, end: bool = False) -> None:
        """Add what a command has written; with an end, also a line that it has not ended."""
        *lines, self._rest = (self._rest + text).split(b"\n")
        if end and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._add(line.decode(errors="replace").rstrip("\r"))
        if time.monotonic() - self._last > EVERY:
            self.flush()

    def hide(self, text: str) -> str:
        """Return a text without the build's secrets."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def flush(self) -> None:
        """Write what has gathered."""
        lines, self._lines, self._last = self._lines, [], time.monotonic()
        for begin in range(0, len(lines) if self.group else 0, 1000):
            part = lines[begin : begin + 1000]
            events = [{"timestamp": when, "message": line} for when, line in part]
            where = {"logGroupName": self.group, "logStreamName": self.stream}
            self.call("logs", "PutLogEvents", where | {"logEvents": events})

    def _add(self, line: str) -> None:
        self._lines.append((int(time.time() * 1000), f"{self.hide(line)[:250_000]}\n"))
