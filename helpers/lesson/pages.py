"""A notebook's page as it is saved: its code cells, their sections, its exercises."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
RESUME = "lesson.resume("  # a cell with it is not the lesson's, but leads back into it


@dataclass(frozen=True)
class Cell:
    """A code cell: its number among them (from 1), id, source, tags, and the section it is in."""

    number: int
    id: str
    source: str
    tags: tuple[str, ...]
    section: str


@dataclass(frozen=True)
class Page:
    """What a notebook holds.

    Attributes:
        title: its title.
        cells: its code cells.
        sections: the headings of levels 2 and 3, each with how many code cells stand before it.
        exercises: what its checks check.
    """

    title: str
    cells: tuple[Cell, ...]
    sections: dict[str, int]
    exercises: tuple[str, ...]

    def cell(self, id: str | None, source: str = "") -> Cell | None:
        """Return the cell of this id, or else the first of this source."""
        found = [one for one in self.cells if one.id == id]
        found += [one for one in self.cells if one.source == source]
        return found[0] if found else None


def numbered() -> dict[int, Path]:
    """Return the course's notebooks by number, in their order."""
    return {int(found.name[:2]): found for found in sorted(NOTEBOOKS.glob("[0-9][0-9]-*.ipynb"))}


def path(number: int) -> Path:
    """Return the file of a notebook: the one that JupyterLab has open, or the course's own."""
    start, opened = f"{number:02}-", Path(os.environ.get("JPY_SESSION_NAME", ""))
    if opened.name.startswith(start) and opened.suffix == ".ipynb" and opened.is_file():
        return opened
    return numbered()[number]


def page(number: int) -> Page:
    """Read the page of the notebook with this number."""
    found = path(number)
    return _read(found, found.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _read(found: Path, _: int) -> Page:
    titles, section, cells, sections, exercises = [], "", [], {}, []
    for raw in json.loads(found.read_text())["cells"]:
        source, tags = "".join(raw["source"]), tuple(raw["metadata"].get("tags", ()))
        if raw["cell_type"] == "code" and RESUME not in source:
            number = len(cells) + 1
            cells.append(Cell(number, raw.get("id", str(number)), source, tags, section))
            if "check" in tags:
                exercises += re.findall(r'lesson\.check\(\s*"([^"]+)"', source)
        elif raw["cell_type"] == "markdown":
            prose = re.sub(r"^```.*?^```", "", source, flags=re.DOTALL | re.MULTILINE)
            for marks, section in re.findall(r"^(#{1,3}) +(.+?) *$", prose, re.MULTILINE):
                if len(marks) == 1:
                    titles.append(section)
                else:
                    sections[section] = len(cells)
    return Page((titles or [found.stem])[0], tuple(cells), sections, tuple(exercises))
