"""Come back to where a lesson was: run its cells again, quietly, up to there."""

from __future__ import annotations

import time

from helpers.lesson import pages, places
from helpers.lesson.notes import notes
from helpers.lesson.places import here

MAY_FAIL = {"exercise", "check", "raises-exception"}


class ResumeError(RuntimeError):
    """A cell failed on the way; the message names it, and its own error is the cause."""


def resume(section: str | None = None) -> None:
    """Run this notebook's cells again, quietly, from the top to where the learner was.

    They are run as they are saved in the notebook's file, in this kernel, without those that it
    has run already. Exercises and checks are run too, and may fail.

    Args:
        section: a heading: what stands before it is run. Without it, everything is run up to the
            last cell that had ended well when the lesson was interrupted.

    Raises:
        ResumeError: the lesson has not begun in this kernel, or a cell failed.
    """
    from IPython import get_ipython

    if here.number is None:
        raise ResumeError("Run the page's first cells, up to `lesson.begin`, and then this one.")
    page = pages.page(here.number)
    with notes(here.number) as known:
        left, seconds = page.cell(known["left"][1]), known["seconds"]
    if section is None and left:
        end, title = left.number, left.section
    else:
        titles = [one for one in page.sections if section and section.lower() in one.lower()]
        if len(titles) != 1 and section not in page.sections:
            print(f"No section {section!r}." if section else "This page was not interrupted.")
            print("lesson.resume(…) takes one of:", *page.sections, sep="\n  ")
            return
        title = section if section in page.sections else titles[0]
        end = page.sections[title]
    begin = time.monotonic()
    cells = [cell for cell in page.cells[:end] if cell.id not in here.ran]
    for done, cell in enumerate(cells):
        _bar(done, len(cells), sum(seconds.get(one.id, 0) for one in cells[done:]))
        _run(get_ipython(), cell)
    if section is None:
        with notes(here.number) as known:
            known["left"] = places.NOWHERE
    _bar(len(cells), len(cells), 0)
    print(f"\nYou are in “{title}” ({time.monotonic() - begin:.1f} s).", end=" ")
    last = f"the cell that begins with: {page.cells[end - 1].source.splitlines()[0]}"
    print(f"Go on below {'its heading.' if section else last}")


def _run(shell, cell: pages.Cell) -> None:
    """Run a cell; what it puts out is shown only if it fails and may not."""
    from IPython.utils.capture import capture_output

    begin = time.monotonic()
    with capture_output() as put_out:
        try:
            code = shell.transform_cell(cell.source)
            name = shell.compile.cache(code, shell.execution_count, raw_code=cell.source)
            exec(shell.compile(code, name, "exec"), shell.user_ns)
        except Exception as problem:
            failed = problem
        else:
            failed = None
    if failed and not MAY_FAIL & {*cell.tags}:
        print()
        put_out.show()
        raise ResumeError(
            f"Code cell {cell.number} failed, in “{cell.section}”: {cell.source.splitlines()[0]}"
        ) from failed
    places.ran(cell, time.monotonic() - begin)


def _bar(done: int, all_: int, seconds: float) -> None:
    full = round(30 * done / all_) if all_ else 30
    left = f", about {seconds:.0f} s left" if seconds >= 1 else ""
    line = f"[{'#' * full}{'.' * (30 - full)}] {done} of {all_} cells{left}"
    print(f"\r{line:72}", end="", flush=True)
