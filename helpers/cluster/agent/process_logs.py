"""The logs of processes: lines that begin with the time at which they were written."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

POLL = 0.1  # seconds


def keep(process: subprocess.Popen, log: Path) -> None:
    """Write down what a process writes, until it ends."""
    with open(log, "ab", buffering=0) as file, process.stdout:
        for line in process.stdout:
            file.write(_time(time.time()) + b" " + line)


def read(
    log: Path,
    running: Callable[[], bool],
    *,
    follow: bool = False,
    tail: int | None = None,
    since: float | None = None,
    timestamps: bool = False,
    limit: int | None = None,
) -> Iterator[bytes]:
    """Yield the lines of a log; with ``follow``, as long as its process is running."""
    left = float("inf") if limit is None else limit
    with open(log, "rb") as file:
        lines = _whole_lines(file)
        if tail is not None:
            lines = lines[max(0, len(lines) - tail) :]
        while True:
            for line in lines:
                when, _, text = line.partition(b" ")
                if since and when < _time(since):
                    continue
                part = (line if timestamps else text)[: int(min(left, len(line)))]
                yield part
                left -= len(part)
                if left <= 0:
                    return
            if not follow:
                return
            ended = not running()
            lines = _whole_lines(file)
            if not lines and ended:
                return
            if not lines:
                yield b""  # so that whoever reads may leave
                time.sleep(POLL)


def _whole_lines(file) -> list[bytes]:
    begin, data = file.tell(), file.read()
    end = data.rfind(b"\n") + 1
    file.seek(begin + end)
    return data[:end].splitlines(keepends=True)


def _time(seconds: float) -> bytes:
    when = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    return when.replace("+00:00", "Z").encode()
