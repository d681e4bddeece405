"""Run the notebooks once before a class does, and tell what will be slow or missing here."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from helpers import ledger, machine, publish
from helpers.lesson import pages
from helpers.view.look import Looker

SLOW_SECONDS = 10


@dataclass
class Run:
    """How one notebook went.

    Attributes:
        notebook: its name.
        seconds: it took, with the start of its kernel.
        cells: section and seconds of each code cell.
        peak_mb: the most memory that all of the course's processes and containers held.
        error: what the cell that failed said, which is the last of ``cells``; empty if none did.
    """

    notebook: str
    seconds: float = 0.0
    cells: list[tuple[str, float]] = field(default_factory=list)
    peak_mb: int = 0
    error: str = ""


def chosen(numbers: list[int]) -> list[Path]:
    """Return the notebooks of these numbers in their order, or all.

    Raises:
        RuntimeError: there is none of a number.
    """
    there = pages.numbered()
    if missing := [str(one) for one in numbers if one not in there]:
        raise RuntimeError(f"There is no notebook {', '.join(missing)}.")
    return [path for number, path in there.items() if not numbers or number in numbers]


@contextlib.contextmanager
def room() -> Iterator[None]:
    """Keep what is started apart from the learner's, and stop all of it, however it ends.

    Raises:
        RuntimeError: something could not be stopped.
    """
    before, home = os.environ.get("LAB_HOME"), Path(tempfile.mkdtemp(prefix="lab-"))
    os.environ["LAB_HOME"] = str(home)
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        left = ledger.down()
        signal.signal(signal.SIGTERM, handler)
        os.environ.pop("LAB_HOME")
        if before is not None:
            os.environ["LAB_HOME"] = before
        if left:
            again = f"LAB_HOME={home} python -m helpers down"
            raise RuntimeError(f"Could not be stopped: {', '.join(left)}. Try: {again}")
        shutil.rmtree(home, ignore_errors=True)


def run(path: Path) -> Run:
    """Execute a notebook as ``make notebooks`` does, without saving it."""
    done, begun, section = Run(path.stem), [0.0], [""]

    def look(cell, cell_index) -> None:  # nbclient passes them by name
        if cell.cell_type == "markdown":
            titles = [one for one in cell.source.splitlines() if one.startswith("#")]
            section[0] = titles[-1].lstrip("# ") if titles else section[0]

    def begin(cell, cell_index) -> None:
        begun[0] = time.monotonic()
        done.cells.append((section[0], 0.0))

    def end(cell, cell_index, execute_reply) -> None:
        done.cells[-1] = (section[0], time.monotonic() - begun[0])

    hooks = {"on_cell_start": look, "on_cell_execute": begin, "on_cell_executed": end}
    clock, over = time.monotonic(), threading.Event()
    with ThreadPoolExecutor() as pool:
        peak = pool.submit(_peak_mb, over)
        # In a thread, nbclient does not take Ctrl-C to itself.
        work = pool.submit(publish.client(path, **hooks).execute, stderr=subprocess.DEVNULL)
        try:
            work.result()
        except publish.FAILURES as problem:
            short = f"{getattr(problem, 'ename', '')}: {getattr(problem, 'evalue', '')}"
            done.error = short.strip(": ") or str(problem).strip().splitlines()[-1]
        except BaseException:
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
            raise
        finally:
            over.set()
    done.seconds, done.peak_mb = time.monotonic() - clock, peak.result()
    return done


def report(runs: list[Run]) -> str:
    """Return the page that a teacher reads before the class."""
    facts, failed = machine.facts(), [one for one in runs if one.error]
    minutes = sum(one.seconds for one in runs) / 60
    lines = [
        f"{len(runs)} notebooks in {minutes:.1f} minutes, "
        + (f"{len(failed)} failed." if failed else "none failed."),
        f"On {facts['processor']}, {facts['cores']} cores, {facts['memory_mb']} MB of memory.",
        f"\n{'notebook':46}{'minutes':>8}{'peak MB':>9}  slowest cell",
    ]
    for one in runs:
        section, seconds = max(one.cells, key=lambda cell: cell[1], default=("none", 0))
        line = (
            f"{one.notebook:46}{one.seconds / 60:8.1f}{one.peak_mb:9}  {seconds:.0f} s, {section}"
        )
        lines.append(line)
    for one in failed:
        section = one.cells[-1][0] if one.cells else "its kernel did not start"
        lines.append(f"\nFAILED {one.notebook}, code cell {len(one.cells)}, {section}: {one.error}")
    lines.append(f"\nWill be slow in this room (cells of more than {SLOW_SECONDS} s, by section):")
    slow: dict[tuple[str, str], list[float]] = {}
    for one in runs:
        for section, seconds in one.cells:
            if seconds > SLOW_SECONDS:
                slow.setdefault((one.notebook[:2], section), []).append(seconds)
    for (number, section), cells in slow.items():
        more = f", in {len(cells)} cells" if len(cells) > 1 else ""
        lines.append(f"  {number}  {sum(cells):4.0f} s  {section}{more}")
    lines += [] if slow else ["  nothing"]
    lines.append("\nMissing, emulated or stood in for in this room:")
    parts = [one for one in machine.survey() if one.why]
    for one in parts:
        lines.append(f"  {one.part}: {one.rung}, because {one.why}")
        lines += [f"      to change that: {one.command}"] if one.command else []
    return "\n".join(lines if parts else [*lines, "  nothing"])


def _peak_mb(over: threading.Event) -> int:
    looker, peak = Looker(slow_seconds=1), 0
    while not over.wait(1):
        with contextlib.suppress(OSError, ValueError):  # it looks at what comes and goes
            peak = max(peak, looker.look().memory_mb)
    return peak


def tell(text: str, end: str = "\n") -> None:
    """Say how far it is, beside the report."""
    print(text, end=end, file=sys.stderr, flush=True)
