"""Prepare what the book and the slides are made from: notebooks and Markdown, for readers only.

Diagrams become pictures, and links to servers that ran on the author's machine become text.
"""

from __future__ import annotations

import multiprocessing
import re
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
TEACHING = "data/teaching"
# The parts of the course, and the number of the last notebook in each.
PARTS = {
    "Your machine": "00",
    "Virtual machines and containers": "03",
    "From a Dockerfile to a container": "06",
    "AWS": "08",
    "Kubernetes": "10",
    "Delivery": "14",
    "The end": "99",
}
DIAGRAM = "Diagram; the paragraph after it says what it shows."
FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LOOPBACK = re.compile(r"\[([^\]]+)\]\((https?://(?:127\.|localhost)[^)]*)\)")
GONE = r"\1 (`\2`, while it ran)"


def markdown(text: str, folder: Path, stem: str) -> str:
    """Return Markdown for readers: diagrams drawn, links to the author's own servers made text.

    Args:
        text: the Markdown of one cell or file.
        folder: where the drawn diagrams (SVG) are written; links to them are relative to it.
        stem: how their names begin.
    """
    import mermaidx

    def draw(fence: re.Match) -> str:
        name = f"{stem}-{fence.start()}.svg"
        (folder / name).write_text(mermaidx.render(fence.group(1)).svg(), encoding="utf-8")
        return f"![{DIAGRAM}]({name})"

    text = text.replace("../README.md", "../index.md")  # the README is the first page
    return LOOPBACK.sub(GONE, FENCE.sub(draw, text))


def notebook(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Read a notebook and return it as it is shown; its diagrams are written to a folder."""
    found = nbformat.read(path, as_version=4)
    found.metadata.language_info["pygments_lexer"] = "ipython3"  # knows `!command` and `%%bash`
    for number, cell in enumerate(found.cells):
        if cell.cell_type == "markdown":
            cell.source = markdown(cell.source, folder, f"{path.stem}-{number}")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/markdown" in data:
                data["text/markdown"] = LOOPBACK.sub(GONE, data["text/markdown"])
            if "text/html" in data:  # the corner of pandas' tables is no heading
                data["text/html"] = data["text/html"].replace("<th></th>", "<td></td>")
            if "image/png" in data:
                alt = output.metadata.get("image/png", {}).get("alt", "")
                cell.metadata["mystnb"] = {"image": {"alt": alt}}
    return found


def title(path: Path) -> str:
    """Return the number and title of a notebook, or the title of a Markdown file."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")
    first = nbformat.read(path, as_version=4).cells[0].source
    return f"{path.stem[:2]} {first.splitlines()[0].removeprefix('# ')}"


def _write(path: Path, folder: Path) -> None:
    nbformat.write(notebook(path, folder), folder / path.name)


def _chapter(part: str, paths: list[Path]) -> str:
    pages = [f"{title(path)} <{path.relative_to(ROOT).with_suffix('')}>" for path in paths]
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {part}", "", *pages, "```"])


def contents() -> str:
    """Return the table of contents as MyST writes it, part by part."""
    chapters = {part: [] for part in PARTS}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        part = next(part for part, last in PARTS.items() if path.stem[:2] <= last)
        chapters[part].append(path)
    chapters["For those who teach"] = sorted((ROOT / TEACHING).glob("*.md"))
    return "\n\n".join(_chapter(part, paths) for part, paths in chapters.items())


def workers() -> ProcessPoolExecutor:
    """Return a pool of processes; they start anew, because what draws diagrams has threads."""
    return ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))


def _readme(folder: Path) -> None:
    readme = markdown((ROOT / "README.md").read_text(encoding="utf-8"), folder, "readme")
    first = min((ROOT / TEACHING).glob("*.md")).relative_to(ROOT)
    readme = readme.replace(f"]({TEACHING})", f"]({first})")
    (folder / "index.md").write_text(f"{readme}\n{contents()}\n", encoding="utf-8")


def write(folder: Path) -> None:
    """Write the sources of the book: the README as its first page, notebooks, notes, data."""
    shutil.copytree(ROOT / "data", folder / "data")
    for name in ("LICENSE", "LICENSE-text"):
        shutil.copy(ROOT / name, folder)
    (folder / "notebooks").mkdir()
    with workers() as pool:
        jobs = [pool.submit(_readme, folder)]
        for path in sorted(NOTEBOOKS.glob("*.ipynb")):
            jobs.append(pool.submit(_write, path, folder / "notebooks"))
        for job in jobs:
            job.result()
