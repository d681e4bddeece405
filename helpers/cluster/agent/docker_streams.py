"""The streams of a command in a container, over a connection that the Engine hands over."""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import time
from collections.abc import Callable


class DockerStream:
    """What ``exec`` and ``attach`` of the Engine give, in the form of ``runtime.Exec``."""

    def __init__(
        self,
        given: object,
        *,
        tty: bool,
        code: Callable[[], int],
        size: Callable[[int, int], None],
    ) -> None:
        """Use the connection that the SDK has given; ``code`` and ``size`` ask the Engine."""
        # What came with the answer's head already waits in the reader, not in the socket.
        self._reader = given._response.raw._fp.fp
        self._socket = self._reader.raw._sock
        self._socket.settimeout(None)
        self._tty, self.exit_code, self._size = tty, code, size

    def write(self, data: bytes) -> None:
        """Send to its standard input."""
        self._socket.sendall(data)

    def close_stdin(self) -> None:
        """End its standard input; under TLS the reading side must not be lost by that."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)

    def read(self) -> tuple[int, bytes] | None:
        """Return the next output and its channel, or None at the end."""
        try:
            if self._tty:
                data = self._reader.read1(32768)
                return (1, data) if data else None
            head = self._reader.read(8)
            if len(head) < 8:
                return None
            channel, length = struct.unpack(">BxxxL", head)
            return channel, self._reader.read(length)
        except (OSError, ValueError):
            return None

    def resize(self, width: int, height: int) -> None:
        """Set the size of its terminal."""
        self._size(width, height)

    def close(self) -> None:
        """Let go of it."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class DockerLog:
    """What a container has written, block by block."""

    def __init__(self, given: object, limit: int | None) -> None:
        """Read the stream that the SDK has given, up to so many bytes."""
        self._given, self._left = given, math.inf if limit is None else limit
        self.close = given.close

    def __iter__(self) -> DockerLog:
        return self

    def __next__(self) -> bytes:
        if self._left <= 0:
            raise StopIteration
        block = next(self._given)
        block = block[: int(min(self._left, len(block)))]
        self._left -= len(block)
        return block


class Streams:
    """The part of ``DockerPods`` that reads from and writes to containers."""

    def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        timestamps: bool = False,
        limit: int | None = None,
    ) -> DockerLog:
        """Yield what a container has written; ``close`` ends it from any thread."""
        stream = self._api.logs(
            container,
            stream=True,
            follow=follow,
            tail="all" if tail is None else tail,
            since=since,
            timestamps=timestamps,
        )
        return DockerLog(stream, limit)

    def exec(self, container: str, argv: list[str], *, stdin: bool, tty: bool) -> DockerStream:
        """Run a command in a container."""
        one = self._api.exec_create(container, argv, stdin=stdin, tty=tty)["Id"]

        def code() -> int:
            while (found := self._api.exec_inspect(one))["Running"]:
                time.sleep(0.02)
            return found["ExitCode"]

        return DockerStream(
            self._api.exec_start(one, tty=tty, socket=True),
            tty=tty,
            code=code,
            size=lambda width, height: self._api.exec_resize(one, height, width),
        )

    def attach(self, container: str, *, stdin: bool, tty: bool) -> DockerStream:
        """Join the streams of a container's own process."""
        streams = {"stdout": 1, "stderr": 1, "stream": 1, "stdin": int(stdin)}
        return DockerStream(
            self._api.attach_socket(container, params=streams),
            tty=tty,
            code=lambda: self._api.wait(container)["StatusCode"],
            size=lambda width, height: self._api.resize(container, height, width),
        )
