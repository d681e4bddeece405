"""Each notebook has notes for those who teach it, and a plan that fits the time that it names."""

import re

import pytest
from reading import PATHS

from helpers import lesson

NOTES = lesson.data("teaching")
SECTIONS = [
    "Before the lesson",
    "In 45 minutes, in 90 minutes",
    "What to ask before running",
    "Questions that students ask",
    "What goes wrong",
    "A demonstration",
]


def test_there_are_no_notes_without_a_notebook():
    assert {one.stem for one in NOTES.glob("[0-9]*")} == {path.stem for path in PATHS}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notes_have_their_sections_and_their_minutes_add_up(path):
    text = (NOTES / f"{path.stem}.md").read_text()
    assert re.findall("^## (.+)", text, re.MULTILINE) == SECTIONS
    rows = re.findall(r"^\|(?:[^|]+)\| (\d+|skip) \| (\d+|skip) \|", text, re.MULTILINE)
    columns = zip(*rows[1:], strict=True)  # below the heading of the table
    minutes = [[int(one) for one in column if one != "skip"] for column in columns]
    assert [sum(column) for column in minutes] == [45, 90]
