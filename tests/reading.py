"""What the tests of the notebooks share: finding them and reading their parts."""

import json
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))

SOLUTION = re.compile(r"<details>.*?```(?:python)?\n(.*?)\n```.*?</details>", re.DOTALL)


def read(path):
    return nbformat.read(path, as_version=4)


def each_notebook(test):
    """Run a test once for every notebook; its argument `path` is the notebook's."""
    return pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)(test)


def tags(cell):
    return cell.metadata.get("tags", [])


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def where(notebook, cell):
    """Name a cell so that one finds it: its number and its first line."""
    first_line = (cell.source.splitlines() or ["(empty)"])[0]
    return f"cell {notebook.cells.index(cell) + 1} ({first_line[:60]!r})"


def headings(notebook):
    """Return (level, text) of every heading, code blocks left out."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^(#{1,6}) +(.+?) *$", text, re.MULTILINE)
    return [(len(marks), title) for marks, title in found]


def plain_text(cell):
    """Return the first plain text that a cell has put out, or an empty string."""
    for output in cell.outputs:
        text = output.get("text") or output.get("data", {}).get("text/plain")
        if text:
            return text
    return ""


def output_text(output):
    """Return all that is readable in an output, pictures in base64 left out."""
    kept = {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/p")}
    rest = {k: output[k] for k in ("text", "ename", "evalue", "traceback") if k in output}
    return json.dumps([kept, rest], ensure_ascii=False)


def exercises(notebook):
    """Yield (starter, check, solution) of every exercise; what is missing is None."""
    for number, cell in enumerate(notebook.cells):
        if "exercise" in tags(cell):
            following = [*notebook.cells[number + 1 : number + 3], None, None]
            check, hint = following[:2]
            if check is None or "check" not in tags(check):
                check = None
            found = SOLUTION.search(hint.source) if hint else None
            yield cell, check, found.group(1) if found else None
