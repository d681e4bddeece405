"""Begin a lesson, and lead the learner to what it uses."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from helpers import machine
from helpers.lesson import pages
from helpers.lesson.figures import style
from helpers.lesson.notes import notes
from helpers.lesson.places import enter


def begin(number: int, *parts: str) -> None:
    """Begin a lesson: show what is real here, and let a failing command fail its cell.

    What an interrupted lesson has left running (its kernel was killed, or restarted) is stopped.
    If it was this one, a sentence says how to go on where it was left.

    Args:
        number: the notebook's number.
        parts: the rows of the doctor's table to show (``virtual machines``, ``containers``, …);
            all of them if none is named.
    """
    import pandas as pd
    from IPython import get_ipython
    from IPython.display import display

    if shell := get_ipython():
        shell.system_raise_on_error = True  # a failing `!command` raises (IPython 9)
        style()
        enter(number, shell)
        _go_on(number)
    pd.set_option("display.max_colwidth", 120)
    rows = [part for part in machine.survey() if not parts or part.part in parts]
    table = pd.DataFrame([(p.part, p.rung, p.real) for p in rows], columns=["part", "rung", "real"])
    table = table.rename(columns={"real": "what is real"}).set_index("part")
    display(table)


def _go_on(number: int) -> None:
    """If the lesson was interrupted, say where, how to go on, and what may be left elsewhere."""
    with notes(number) as known:
        left = known["left"][1]
    page = pages.page(number)
    cell = page.cell(left)
    if not cell or any("lesson.begin(" in one.source for one in page.cells[cell.number - 1 :]):
        return
    print(
        f"This page was left in “{cell.section}”, after code cell {cell.number} of "
        f"{len(page.cells)}. To go on from there: lesson.resume()"
    )
    if os.environ.get("LAB_AWS") == "real":
        print("Your AWS account may still hold what it had made: see python -m helpers status")
    if os.environ.get("LAB_KUBE_CONTEXT"):
        print("Your cluster may still hold what it had made: see kubectl get all")


def link(url: str, text: str | None = None) -> None:
    """Show a link to a server on this machine's loopback that works in the learner's browser.

    Behind JupyterHub or Binder the browser is elsewhere, so the link goes through
    jupyter-server-proxy.
    """
    from IPython.display import Markdown, display

    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    there = urlsplit(url)
    own = there.hostname in ("127.0.0.1", "localhost")
    place = there.port if own else f"{there.hostname}:{there.port}"
    rest = url.split(there.netloc, 1)[1].lstrip("/")
    target = f"{prefix}proxy/{place}/{rest}" if prefix else url
    display(Markdown(f"[{text or url}]({target})"))


def data(name: str) -> Path:
    """Return a file of the repository's ``data`` folder."""
    return Path(__file__).parents[2] / "data" / name
