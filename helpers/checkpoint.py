"""Make a room ready to begin one notebook as if those before it had been done."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from helpers import ledger
from helpers.lesson import notes, pages
from helpers.view.look import NAME as VIEW


def left() -> list[ledger.Entry]:
    """Return what other lessons have left, newest first; the live view may stay."""
    return [one for one in reversed(ledger.entries()) if one.name != VIEW and one.alive()]


def stop(entries: list[ledger.Entry]) -> None:
    """Stop what was left.

    Raises:
        RuntimeError: something cannot be stopped.
    """
    if stays := [one.name for one in entries if not ledger.stop(one)]:
        raise RuntimeError(f"Could not be stopped: {', '.join(stays)}. Run this again.")


def take(number: int) -> int:
    """Note the exercises of all notebooks before one as done, and return how many were open.

    They are marked as ``taken``: nobody has solved them here.
    """
    count = 0
    for before in [one for one in pages.numbered() if one < number]:
        with notes.notes(before) as known:
            open_ = [one for one in pages.page(before).exercises if one not in known["passed"]]
            known["passed"] |= dict.fromkeys(open_, time.time())
            known["taken"] += open_
        count += len(open_)
    return count


def needs(number: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what a notebook starts for itself, and how: read from its cells, so it fits them."""
    from helpers import cloud, cluster, containers

    cells = [one.source for one in pages.page(number).cells if "exercise" not in one.tags]
    text = "\n".join(cells)
    images = dict.fromkeys(re.findall(r'containers\.image\("([^"]+)"\)', text))
    if "containers.engine(" in text or images:
        yield "the Docker Engine", containers.engine
    for name in images:
        yield f"the image {name}", lambda name=name: containers.image(name)
    if "cloud.start(" in text:
        yield "AWS", cloud.start
    if found := re.search(r"cluster\.start\((?:nodes=(\d+))?\)", text):
        yield "Kubernetes", lambda: cluster.start(nodes=int(found[1] or 1))


def address(path: Path) -> str:
    """Return where a notebook opens: in the JupyterLab that runs here, or else its file."""
    from jupyter_core.paths import jupyter_runtime_dir

    for about in Path(jupyter_runtime_dir()).glob("jpserver-*.json"):
        server = json.loads(about.read_text())
        root = Path(server["root_dir"])
        if psutil.pid_exists(server["pid"]) and path.is_relative_to(root):
            return f"{server['url']}lab/tree/{path.relative_to(root)}"
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
