"""Where the learner is, and what becomes of a lesson whose kernel has died."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from helpers import ledger
from helpers.lesson import pages
from helpers.lesson.notes import folder, notes, numbers


@dataclass
class Here:
    """This kernel's lesson: its number, the ids of the cells that it has run, and its clock."""

    number: int | None = None
    ran: set[str] = field(default_factory=set)
    started: float = 0.0


here = Here()
NOWHERE = [0, ""]


def enter(number: int, shell) -> None:
    """Begin a lesson in this kernel; stop what dead kernels have left, and say so.

    Args:
        number: the notebook's.
        shell: IPython's, whose cells are followed from now on.
    """
    me = os.environ[ledger.KERNEL] = ledger.identity(os.getpid())
    with open(folder() / "sweep.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep()
    if here.number is None:
        shell.events.register("pre_run_cell", _before)
        shell.events.register("post_run_cell", _after)
        here.started = time.monotonic()
    here.number = number
    with notes(number) as known:
        known["kernels"].setdefault(me, NOWHERE)


def ran(cell: pages.Cell, seconds: float) -> None:
    """Note that a cell of this lesson has ended well; after the last one the lesson is over."""
    here.ran.add(cell.id)
    me = os.environ[ledger.KERNEL]
    with notes(here.number) as known:
        known["seconds"][cell.id], known["last"] = round(seconds, 2), time.time()
        known["kernels"][me] = [cell.number, cell.id]
        if cell == pages.page(here.number).cells[-1]:
            del known["kernels"][me]
            known["left"] = NOWHERE


def _before(info) -> None:
    if pages.RESUME not in (info.raw_cell or ""):
        here.started = time.monotonic()


def _after(result) -> None:
    source = result.info.raw_cell or ""
    with contextlib.suppress(OSError):
        cell = pages.page(here.number).cell(result.info.cell_id, source)
        well = cell and (result.success or "raises-exception" in cell.tags)
        if well and pages.RESUME not in source:
            ran(cell, time.monotonic() - here.started)


def _dead() -> Iterator[tuple[int, dict[str, list], bool]]:
    """Yield the number of each interrupted lesson, its dead kernels, and whether others live."""
    for number in numbers():
        with notes(number) as known:
            kernels = dict(known["kernels"])
        if dead := {who: cell for who, cell in kernels.items() if not _lives(who)}:
            yield number, dead, len(dead) < len(kernels)


def _lives(who: str) -> bool:
    return ledger.identity(int(who.split("-")[0])) == who


def _sweep() -> None:
    """Stop what only interrupted lessons have used, and note where they were left."""
    interrupted = list(_dead())
    if not interrupted:
        return
    labels = _stop({who for _, dead, _ in interrupted for who in dead})
    labels |= {f"page={number:02}" for number, _, others in interrupted if not others}
    for engine in [entry for entry in ledger.entries() if "label" in entry.facts]:
        for label in labels:
            ledger.remove_labelled(engine, label)
    for number, dead, _ in interrupted:
        with notes(number) as known:
            known["left"] = max(known["left"], *dead.values())
            for who in dead:
                known["kernels"].pop(who, None)


def _stop(gone: set[str]) -> set[str]:
    """Stop what was used by kernels that have gone, and by no living one.

    A thing goes with the process that has recorded it, and the parts of a cluster go together.
    Return the labels of what clusters have left in an Engine.
    """
    entries = ledger.entries()
    known = {entry.id: entry for entry in entries}

    def whole(entry: ledger.Entry) -> str:
        while entry.parent in known:
            entry = known[entry.parent]
        return entry.facts.get("cluster", entry.id)

    parts = defaultdict(list)
    for entry in entries:
        if entry.parent not in known:
            parts[whole(entry)].append(entry.users)
    swept = [
        entry
        for entry in reversed(entries)
        if entry.users
        and all(parts[whole(entry)])
        and (users := {who for part in parts[whole(entry)] for who in part}) & gone
        and not any(_lives(who) for who in users)
    ]
    names = [one.name for one in reversed(swept) if one.kind != "files" and one.alive()]
    if names:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        print(f"Stopping what an interrupted lesson has left: {', '.join(names[:4])}{more}.")
    for one in swept:
        ledger.stop(one)
    return {f"lab.cluster={one.facts['cluster']}" for one in swept if "cluster" in one.facts}
