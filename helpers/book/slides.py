"""Turn notebooks into slides (``make slides``), with reveal.js from a package beside them.

A heading of the first or second level begins a slide, one of the third the slide below it; so does
whatever would not fit on a slide any more. Solutions become notes for the speaker (key S), checks
are left out.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from helpers.book import checks, stage

LINES = 22  # of prose that fit on a slide
COLUMNS = 95
CODE = 0.75  # the height of a line of code, in lines of prose
PICTURE = 13  # the height of a picture, and the most of an output that is seen at once
BLOCK = re.compile(r"(?:^```.*?^```$|^<details>.*?^</details>$|\S.*?(?=\n\n|\Z))", re.DOTALL | re.M)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]*\)")  # to a page: here only its words


def height(cell: NotebookNode) -> float:
    """Return about how many lines of a slide a cell takes."""
    if cell.cell_type == "markdown":
        if "![" in cell.source:
            return PICTURE
        rows = cell.source.splitlines()
        return 1 + sum(2 if row.startswith("#") else 1 + len(row) // COLUMNS for row in rows)
    shown = 0
    for output in cell.outputs:
        data = output.get("data", {})
        text = output.get("text") or data.get("text/plain", "")
        shown += PICTURE if "image/png" in data else 1 + CODE * len(text.splitlines())
    return 1.5 + CODE * len(cell.source.splitlines()) + min(shown, PICTURE)


def pieces(cells: list[NotebookNode]) -> Iterator[NotebookNode]:
    """Yield the cells, prose cut between its paragraphs, each with its part in the talk."""
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code":
            kind = "skip" if "check" in tags else "-"
            cell.metadata["slideshow"] = {"slide_type": kind}
            for output in cell.outputs:
                if "text/markdown" in output.get("data", {}):
                    output.data["text/markdown"] = LINK.sub(r"\1", output.data["text/markdown"])
            yield cell
            continue
        for block in BLOCK.findall(LINK.sub(r"\1", cell.source)):
            level = re.match(r"(#{1,3}) ", block)
            kind = {1: "slide", 2: "slide", 3: "subslide"}[len(level[1])] if level else "-"
            kind = "notes" if block.startswith("<details>") else kind
            yield new_markdown_cell(block, metadata={"slideshow": {"slide_type": kind}})


def paginate(notebook: NotebookNode) -> NotebookNode:
    """Cut a notebook into slides, in place: begin a new one where the next piece would not fit."""
    notebook.cells = list(pieces(notebook.cells))
    room = LINES
    for cell, following in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        show = cell.metadata["slideshow"]
        if show["slide_type"] in ("notes", "skip"):
            continue
        need = height(cell)
        if cell.source.startswith("#") and following is not None:
            need += min(height(following), LINES - need)  # no heading stands alone
        if show["slide_type"] == "-" and need > room:
            show["slide_type"] = "subslide"
        if show["slide_type"] != "-":
            room = LINES
        room -= height(cell)
    return notebook


def _export(path: Path, out: Path) -> None:
    from nbconvert import SlidesExporter

    exporter = SlidesExporter(
        template_name="deck",
        extra_template_basedirs=[str(Path(__file__).parent)],
        reveal_url_prefix="reveal.js",
        reveal_theme="white",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    name = {"metadata": {"name": stage.title(path)}}
    page, _ = exporter.from_notebook_node(paginate(stage.notebook(path, out)), resources=name)
    (out / f"{path.stem}.html").write_text(page, encoding="utf-8")


def build(notebooks: list[Path], out: Path) -> list[str]:
    """Write the slides of some notebooks and return what is wrong with them, a sentence each.

    Args:
        notebooks: their paths.
        out: the folder of the slides; what it held before is replaced.
    """
    shutil.rmtree(out, ignore_errors=True)
    package = Path(importlib.util.find_spec("sphinx_revealjs").origin).parent
    shutil.copytree(package / "_static/revealjs", out / "reveal.js")
    with stage.workers() as pool:
        list(pool.map(_export, notebooks, [out] * len(notebooks)))
    return checks.problems(out)
