"""Every notebook has the form that the course promises its readers."""

import ast
import getpass
import json
import re
import socket

from IPython.core.inputtransformer2 import TransformerManager
from reading import (
    PATHS,
    code_cells,
    each_notebook,
    exercises,
    headings,
    output_text,
    plain_text,
    read,
    tags,
    where,
)

from helpers.lesson import pages

SECTIONS = [
    "What you will learn",
    "What you need",
    "Summary",
    "On real AWS|In production",
    "Clean up",
    "Next",
]
FRAME = ("00", "99")  # the notebooks before and after the lessons
PRIVATE = {
    "a path of one machine": r"(?<![\w.~])/(?:root|home|Users|work|tmp|var/folders)/\w",
    "a token": r"token=\w{16,}|\beyJ[\w-]{20,}\.|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|PRIVATE KEY",
    "traces of an execution that was interrupted": r"an interrupted lesson has left|was left in “",
}


def parse(source):
    """Parse a cell as Python, with its shell lines and magics turned into calls."""
    return ast.parse(TransformerManager().transform_cell(source))


def own_names():
    """The names of this machine and its user that would tell where a notebook was executed."""
    names = {socket.gethostname(), getpass.getuser()} - {"root", "runner", "jovyan", "localhost"}
    return [name for name in names if len(name) > 3]


def test_names_of_notebooks():
    assert PATHS, "there are no notebooks"
    for path in PATHS:
        assert re.fullmatch(r"\d\d-[a-z0-9]+(-[a-z0-9]+)*\.ipynb", path.name)
    numbers = [path.name[:2] for path in PATHS]
    assert len(set(numbers)) == len(numbers), "two notebooks have the same number"


@each_notebook
def test_headings(path):
    notebook = read(path)
    levels = [level for level, _ in headings(notebook)]
    assert notebook.cells[0].source.startswith("# "), "the first cell holds the title"
    assert levels.count(1) == 1, "one title, and only one"
    for above, below in zip(levels, levels[1:], strict=False):
        assert below <= above + 1, f"a heading of level {below} follows one of level {above}"


@each_notebook
def test_sections(path):
    titles = [title for level, title in headings(read(path)) if level == 2]
    wanted = {"00": SECTIONS[-1:], "99": []}.get(path.name[:2], SECTIONS)
    found = [
        next((n for n, title in enumerate(titles) if re.match(section, title)), None)
        for section in wanted
    ]
    missing = [section for section, n in zip(wanted, found, strict=True) if n is None]
    assert not missing, f"sections that are missing: {missing}"
    assert found == sorted(found), f"the order is {wanted}"


@each_notebook
def test_cells(path):
    notebook = read(path)
    before = None
    for cell in notebook.cells:
        assert cell.source.strip(), f"{where(notebook, cell)} is empty"
        if cell.cell_type == "code":
            lines = len(cell.source.splitlines())
            most = 40 if "apiVersion:" in cell.source else 12  # a manifest is long and is data
            assert lines <= most, f"{where(notebook, cell)} has {lines} lines, more than {most}"
            explained = before == "markdown" or "check" in tags(cell)
            assert explained, f"{where(notebook, cell)} has no prose before it"
        before = cell.cell_type


@each_notebook
def test_prose_has_no_two_dollars_in_a_paragraph(path):
    notebook = read(path)  # JupyterLab takes what lies between them for a formula
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.DOTALL)
            for paragraph in prose.split("\n\n"):
                assert paragraph.count("$") < 2, f"{where(notebook, cell)}: {paragraph}"


@each_notebook
def test_imports_stand_in_the_first_code_cell(path):
    notebook = read(path)
    for cell in code_cells(notebook)[1:]:
        for node in ast.walk(parse(cell.source)):
            late = isinstance(node, ast.Import | ast.ImportFrom)
            assert not late, f"{where(notebook, cell)} imports; only the set-up cell does"


@each_notebook
def test_executed_in_order(path):
    counts = [cell.execution_count for cell in code_cells(read(path))]
    assert counts == list(range(1, len(counts) + 1)), "run: make notebooks"


@each_notebook
def test_outputs(path):
    notebook = read(path)
    assert path.stat().st_size < 1_500_000, "the notebook is larger than 1.5 MB"
    for cell in code_cells(notebook):
        here = where(notebook, cell)
        failed = any(output.output_type == "error" for output in cell.outputs)
        announced = "raises-exception" in tags(cell)
        assert failed <= announced, f"{here} failed"
        assert announced <= failed, f"{here} announces an error that does not come"
        assert cell.outputs or "nbval-check-output" not in tags(cell), (
            f"{here} has no output that nbval could compare"
        )
        for output in cell.outputs:
            assert len(json.dumps(output)) < 400_000, f"an output of {here} is larger than 400 kB"


@each_notebook
def test_nothing_private_in_outputs(path):
    notebook = read(path)
    patterns = PRIVATE | {f"the name {name}": rf"\b{re.escape(name)}\b" for name in own_names()}
    for cell in code_cells(notebook):
        for output in cell.outputs:
            for what, pattern in patterns.items():
                found = re.search(pattern, output_text(output))
                assert not found, f"{where(notebook, cell)} shows {what}: {found.group()}"


@each_notebook
def test_images_have_alternative_text(path):
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            silent = re.findall(r"!\[\s*\]\(|<img(?![^>]*\balt=['\"]\w)[^>]*>", cell.source)
            assert not silent, f"{where(notebook, cell)} has an image without alternative text"


@each_notebook
def test_exercises(path):
    notebook = read(path)
    found = list(exercises(notebook))
    assert found or path.name[:2] in FRAME, "a lesson has at least one exercise"
    for starter, check, solution in found:
        here = where(notebook, starter)
        assert check is not None, f"{here} is not followed by a cell tagged check"
        assert "nbval-check-output" in tags(check), f"the check of {here} is not compared by nbval"
        assert plain_text(check).startswith("not yet"), f"the check of {here} passes on a blank"
        assert solution, f"{here} has no solution in <details> after its check"
        parse(solution)
        hint = notebook.cells[notebook.cells.index(check) + 1].source.split("<details>")[0]
        assert hint.strip(), f"{here} has a solution but no hint before it"


@each_notebook
def test_progress_can_be_counted(path):
    number, notebook = int(path.name[:2]), read(path)
    begun = re.findall(r"lesson\.begin\((\d+)", "".join(c.source for c in code_cells(notebook)))
    assert begun == [str(number)] * (number != 99), "lesson.begin is told the notebook's number"
    checked, found = pages.page(number).exercises, list(exercises(notebook))
    assert len({*checked}) == len(found), "each check has a title of its own, as it stands there"


def test_the_first_page_and_the_readme_name_every_other():
    first = "".join(cell.source for cell in read(PATHS[0]).cells)
    readme = (PATHS[0].parents[1] / "README.md").read_text()
    for path in PATHS[1:]:
        assert f"]({path.name})" in first, f"the first notebook has no link to {path.name}"
        assert f"`{path.stem}`" in readme, f"the README does not name {path.stem}"
