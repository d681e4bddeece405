"""What is remembered of a learner's way: what was passed, where they were, what takes how long."""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from pathlib import Path

from helpers import ledger
from helpers.lesson import pages


def folder() -> Path:
    """Return the folder of the notes, which stays when everything is stopped."""
    path = ledger.home() / "lessons"
    path.mkdir(exist_ok=True)
    return path


def numbers() -> list[int]:
    """Return the numbers of the notebooks of which there are notes."""
    return sorted(int(path.stem) for path in folder().glob("[0-9][0-9].json"))


@contextlib.contextmanager
def notes(number: int) -> Iterator[dict]:
    """Give a notebook's notes to read or change; at the end of the block they are written.

    ``passed`` has the exercises and when they were passed first, ``taken`` those of them that were
    only taken as done (see ``helpers.checkpoint``), ``kernels`` the kernels that are in the middle
    and their last cell (number and id), ``left`` the furthest where one has died, ``seconds`` what
    each cell took, and ``last`` when one ran.
    """
    path = folder() / f"{number:02}.json"
    with open(folder() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two notebooks may write at once
        try:
            known = json.loads(path.read_text())
        except (OSError, ValueError):
            known = {}
        empty = {"passed": {}, "taken": [], "kernels": {}, "left": [0, ""], "seconds": {}}
        known = empty | {"last": 0} | known
        before = json.dumps(known)
        yield known
        if json.dumps(known) != before:
            draft = path.with_suffix(".draft")
            draft.write_text(json.dumps(known))
            draft.replace(path)


def progress() -> None:
    """Show how far you are: for each notebook the exercises that you have passed, and when."""
    from IPython.display import display

    rows = ["| notebook | exercises done | last |", "|---|---|---|"]
    for number, path in pages.numbered().items():
        page = pages.page(number)
        with notes(number) as known:
            done, last = len(known["passed"].keys() & {*page.exercises}), known["last"]
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(last)) if last else "–"
        count = f"{done} of {len(page.exercises)}" if page.exercises else "–"
        rows.append(f"| [{number:02} {page.title}]({path.name}) | {count} | {when} |")
    table = "\n".join(rows)
    display({"text/markdown": table, "text/plain": table}, raw=True)
