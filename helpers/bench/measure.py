"""Measure: repeated, in turns, with the place, its rung, the machine and the time in every row."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import ledger, machine
from helpers.bench import places as at

if TYPE_CHECKING:
    import pandas

PLACES = ("process", "namespaces", "docker", "vm")
SERVERS = (*PLACES, "vm restored")
ROWS = tuple(
    "integer lu triad random_access syscall page_fault fork "
    "sequential_write random_read random_write".split()
)
PUBLISHED = Path(__file__).parents[2] / "data/measurements/published.csv"


def compare(
    places: Sequence[str] = PLACES,
    rows: Sequence[str] = ROWS,
    repeats: int = 3,
    seconds: float = 0.25,
) -> pandas.DataFrame:
    """Do the same work in several places, in turns (A B C A B C).

    Args:
        places: some of ``PLACES``.
        rows: some of ``ROWS``; ``bench.c`` says what each of them measures.
        repeats: how often each place has its turn.
        seconds: for each row and turn.

    Returns:
        Columns row, value, unit, place, rung, repeat, note (why there is no value), machine, time
        (UTC). Like all results it is saved as CSV in the folder ``results`` of ``LAB_HOME``.

    Raises:
        BenchError: there is no such place or row, or a program fails.
    """
    found = []
    with contextlib.ExitStack() as stack:
        sizes = {name: {"memory": 512} if name == "vm" else {} for name in places}
        ready = {name: stack.enter_context(at.place(name, **sizes[name])) for name in places}
        for repeat, name in _turns("Comparing", places, repeats, len(rows) * seconds * 1.5):
            place = ready[name]
            answer = place.run(["rows", str(seconds), place.disk, *rows])
            found += _read(answer, name, place.rung, repeat)
    return _table(found, "compare")


def starts(places: Sequence[str] = SERVERS, repeats: int = 5) -> pandas.DataFrame:
    """Measure how long it takes to start, in ms, in turns; columns as for ``compare``.

    Row ``start`` is a program that ends at once, from the call to its end; for a virtual machine
    from the start of QEMU until its userspace answers. Row ``first_reply`` is from the call that
    starts the HTTP server in the place to its first reply.
    """
    found = []
    _prepare(places)
    for repeat, name in _turns("Starting", places, repeats, 2):
        begin = time.perf_counter()
        with at.place(name) as place:
            place.wait()
            seconds, rung, booted = time.perf_counter() - begin, place.rung, place.boot_seconds
        found.append(_result("first_reply", seconds * 1000, "ms", name, rung, repeat))
        if name in PLACES:
            seconds = booted or at.start(name)
            found.append(_result("start", seconds * 1000, "ms", name, rung, repeat))
    return _table(found, "starts")


def http(
    places: Sequence[str] = SERVERS, repeats: int = 3, seconds: float = 0.3, connections: int = 8
) -> pandas.DataFrame:
    """Measure HTTP servers in several places from outside, in turns; columns as for ``compare``.

    Rows ``latency_median`` and ``latency_p99`` (µs) with one connection, ``throughput``
    (requests/s) with several.
    """
    found = []
    with contextlib.ExitStack() as stack:
        ready = {name: stack.enter_context(at.place(name)) for name in places}
        for place in ready.values():
            place.wait()
        for repeat, name in _turns("Asking", places, repeats, 2 * seconds):
            place = ready[name]
            ask = ["load", "127.0.0.1", str(place.port), str(seconds)]
            one, several = at.bench([*ask, "1"]), at.bench([*ask, str(connections)])
            found += _read(one, name, place.rung, repeat)[:2]
            found += _read(several, name, place.rung, repeat)[2:]
    return _table(found, "http")


def memory_per_instance(places: Sequence[str] = SERVERS) -> pandas.DataFrame:
    """Measure what one HTTP server takes of the memory, in MB; columns as for ``compare``.

    All that it needs is counted: with Docker the container's shim and the published port's proxy,
    with a virtual machine the whole of QEMU.
    """
    found = []
    for name in places:
        with at.place(name) as place:
            place.wait()
            memory = at.memory_mb([place])
            found.append(_result("memory", memory, "MB", name, place.rung, 1))
    return _table(found, "memory")


def density(place: str, memory_mb: float = 1024, most: int = 50) -> pandas.DataFrame:
    """Start HTTP servers until so much memory is used, or so many run; then stop them all.

    Args:
        place: one of ``SERVERS``.
        memory_mb: what they may take together; the one that exceeds it is the last.
        most: the most that are started.

    Returns:
        Columns instance (1, 2, …), start_seconds (to its first reply), memory_mb (of all so far),
        place, rung, machine, time.
    """
    found, running = [], []
    _prepare([place])
    with contextlib.ExitStack() as stack:
        for number in range(1, most + 1):
            begin = time.perf_counter()
            running.append(stack.enter_context(at.place(place)))
            running[-1].wait()
            seconds, memory = time.perf_counter() - begin, at.memory_mb(running)
            found.append({"instance": number, "start_seconds": seconds, "memory_mb": memory})
            found[-1] |= {"place": place, "rung": running[-1].rung}
            print(f"\r{place}: {number} servers, {memory:.0f} MB   ", end="", flush=True)
            if memory >= memory_mb:
                break
        print("… stopping them", flush=True)
    return _table(found, "density")


def summary(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return median, least and most of each row in each place."""
    groups = results.groupby(["row", "unit", "place", "rung"], sort=False)
    return groups["value"].agg(["median", "min", "max", "count"])


def published() -> pandas.DataFrame:
    """Return figures of the literature: row, place, value, unit, source, machine, note."""
    import pandas

    return pandas.read_csv(PUBLISHED, keep_default_na=False)


def _prepare(places: Sequence[str]) -> None:
    """Make what is made only once, so that it is not part of what is measured."""
    for name in places:
        if name == "vm":
            at.snapshot()  # made by booting such a machine
            continue
        with at.place(name) as place:
            place.wait()


def _turns(what: str, places: Sequence[str], repeats: int, seconds: float) -> Iterator:
    """Yield (repeat, place) in turns and keep a line up to date; one takes about ``seconds``."""
    turns = [(repeat, name) for repeat in range(1, repeats + 1) for name in places]
    begin = time.monotonic()
    for done, turn in enumerate(turns):
        each = (time.monotonic() - begin) / done if done else seconds
        left = each * (len(turns) - done)
        print(f"\r{what}: {done} of {len(turns)}, about {left:.0f} s left   ", end="", flush=True)
        yield turn
    print(f"\r{what}: {len(turns)} turns took {time.monotonic() - begin:.0f} s      ", flush=True)


def _read(answer: str, place: str, rung: str, repeat: int) -> list[dict]:
    """Read what the benchmark prints: lines of row,value,unit,note."""
    cells = [line.split(",") for line in answer.splitlines()]
    return [
        _result(row, float(value or "nan"), unit, place, rung, repeat) | {"note": note}
        for row, value, unit, note in cells
    ]


def _result(row: str, value: float, unit: str, place: str, rung: str, repeat: int) -> dict:
    found = {"row": row, "value": value, "unit": unit, "place": place, "rung": rung}
    return found | {"repeat": repeat}


def _table(found: list[dict], name: str) -> pandas.DataFrame:
    """Add machine and time to the results, save them and return them."""
    import pandas

    facts, now = machine.facts(), datetime.now(UTC)
    processor = re.sub(r"\((R|TM)\)|\b(CPU|Processor)\b|@.*", "", facts["processor"])
    about = f"{' '.join(processor.split())}, {facts['cores']} cores"
    time_ = now.isoformat(timespec="seconds")
    table = pandas.DataFrame(found).assign(machine=about, time=time_)
    folder = ledger.home() / "results"
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / f"{name}-{now:%Y%m%dT%H%M%S-%f}.csv", index=False)
    return table
