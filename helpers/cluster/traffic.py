"""Requests that go on while a cluster changes, and what came back when."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


@contextmanager
def traffic(url: str, rate: float = 200, clients: int = 8) -> Iterator[list[tuple[float, str]]]:
    """Send requests from the beginning of a block to its end, each on a connection of its own.

    Args:
        url: what to ask for; the answer is JSON with a ``version``.
        rate: requests a second at most; fewer where answers take longer.
        clients: how many requests may be under way at once.

    Yields:
        A list that grows: seconds since the beginning of the request, and the version that
        answered or, if none did, the status or the name of the error.
    """
    rows: list[tuple[float, str]] = []
    over, begin, where = threading.Event(), time.monotonic(), urlsplit(url)

    def ask() -> str:
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=2)
        try:
            connection.request("GET", where.path or "/")
            answer = connection.getresponse()
            body = answer.read()
            return json.loads(body)["version"] if answer.status == 200 else str(answer.status)
        except (OSError, http.client.HTTPException) as problem:
            return type(problem).__name__
        finally:
            connection.close()

    def send(first: float) -> None:
        due = begin + first
        while not over.wait(max(0, due - time.monotonic())):
            asked = time.monotonic()
            rows.append((asked - begin, ask()))
            due = max(due + clients / rate, asked)

    threads = [threading.Thread(target=send, args=(k / rate,), daemon=True) for k in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield rows
    finally:
        over.set()
        for thread in threads:
            thread.join()
