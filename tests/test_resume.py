"""A lesson whose kernel dies loses nothing: what it left is stopped, and one cell leads back."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from killed_kernels import kernel, killed, running
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers import ledger
from helpers.lesson.notes import notes

CHECK = '@lesson.check("You know it")\ndef _():\n    yield answer is not ..., "Say it."'


def code(source, *tags):
    return new_code_cell(source, metadata={"tags": [*tags]})


@pytest.fixture
def made(tmp_path, home):
    """A small notebook that starts something, and the environment of its kernels."""
    sleep = "sleeper = ledger.spawn('a sleeper', ['sleep', '300'])[1]"
    cells = [
        new_markdown_cell("# A small page\n\n## Set up"),
        code("from helpers import ledger, lesson\n\nlesson.begin(0, 'AWS')"),
        new_markdown_cell("## Start\n\n```\n## no heading\n```"),
        code(f"assert not [one.name for one in ledger.entries()]\n{sleep}"),
        code("1 / 0", "raises-exception"),
        new_markdown_cell("## Exercises\n\n### Say it"),
        code("answer = undefined", "exercise", "raises-exception"),
        code(CHECK, "check"),
        new_markdown_cell("## Go deeper"),
        code("deep = 42\nprint('deep')"),
        code("ledger.stop(sleeper)"),
    ]
    path = tmp_path / "00-made.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path, {**os.environ, "JPY_SESSION_NAME": str(path)}


@pytest.mark.slow
def test_a_kernel_may_die_after_any_cell(made):
    for after in range(1, 7):
        killed(*made, after)
        assert running(made[1]) == []


def test_resume_leads_back_to_where_the_kernel_died(made):
    with kernel(*made) as run:
        run.cells(range(6))
        run.kill()
    assert running(made[1]) == ["a sleeper"]
    with kernel(*made) as run:
        said = run.line(run.notebook.cells[run.code[0]].source)
        assert "lesson has left: a sleeper." in said
        assert "left in “Go deeper”, after code cell 6 of 7" in said
        said = run.line("lesson.resume()")
        assert re.search(r"5 of 5 cells\s+You are in “Go deeper” \(\d", said.replace("\r", "\n"))
        assert "Go on below the cell that begins with: deep = 42" in said
        assert "Traceback" not in said
        assert run.line("print(deep, sleeper.alive(), 'answer' in globals())") == "42 True False\n"
        assert "was not interrupted" in run.line("lesson.resume()")
        run.cells([6])
    with kernel(*made) as run:
        said = run.line(run.notebook.cells[run.code[0]].source)
        assert "left" not in said, "the lesson was over"


def test_resume_leads_to_a_section_and_names_them(made):
    with kernel(*made) as run:
        run.cells([0])
        said = run.line("lesson.resume('Elsewhere')")
        assert said.endswith("Set up\n  Start\n  Exercises\n  Say it\n  Go deeper\n")
        assert "You are in “Say it”" in run.line("lesson.resume('say')")
        assert run.line("print(sleeper.alive(), 'deep' in globals())") == "True False\n"
        run.cells(range(3, 7))


def test_resume_stops_at_a_cell_that_fails_and_names_it(made):
    path, environment = made
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[9].source = "!echo said before >&2\ndeep = undefined"
    nbformat.write(notebook, path)
    with kernel(path, environment) as run:
        run.cells([0])
        with pytest.raises(nbclient.exceptions.CellExecutionError) as failed:
            run.line("notebook = lesson.resume('Go deeper')\nlesson.resume('Go deeper')")
            run.notebook.cells.append(new_markdown_cell("## End"))
            nbformat.write(run.notebook, path)
            run.line("lesson.resume('End')")
        said = str(failed.value)
        assert "Code cell 6 failed, in “Go deeper”: !echo said before" in said
        assert "\nsaid before" in said, "what the cell had put out is shown"
        assert "name 'undefined' is not defined" in said
        run.line("deep = 1")


def test_what_others_use_stays(made):
    start = "from helpers import ledger; ledger.spawn('from a terminal', ['sleep', '300'])"
    subprocess.run([sys.executable, "-c", start], check=True, env=made[1])
    begin = "from helpers import ledger, lesson\nlesson.begin(1, 'AWS')"
    mine = "entry = ledger.spawn('mine', ['sleep', '300'])[1]"
    with kernel(*made) as one, kernel(*made) as two:
        one.line(begin + f"\n{mine}\nshared = ledger.spawn('shared', ['sleep', '300'])[1]")
        two.line(begin + "\nledger.use(*[e for e in ledger.entries() if e.name == 'shared'])")
        one.kill()
        with kernel(*made) as three:
            said = three.line(begin)
            assert "has left: mine." in said
            assert running(made[1]) == ["from a terminal", "shared"]
            two.kill()
            assert "has left: shared." in three.line(begin)
            assert running(made[1]) == ["from a terminal"]


def test_a_pass_is_noted_and_stays(made):
    with kernel(*made) as run:
        run.cells([0])
        run.line(f"answer = 42\n{CHECK}\nanswer = ...\n{CHECK}")
        shown = run.line("lesson.progress()")
        assert "| [00 A small page](00-check-your-machine.ipynb) | 1 of 1 | 2" in shown
        assert "(01-boot-a-virtual-machine.ipynb) | 0 of 4 | – |" in shown
    with notes(0) as known:
        assert [*known["passed"]] == ["You know it"]


def test_questions_are_shown_to_all_readers(made, tmp_path):
    course = Path(__file__).parents[1] / "notebooks/00-check-your-machine.ipynb"
    with kernel(course, made[1] | {"JPY_SESSION_NAME": ""}) as run:
        run.cells([0])
        assert "1. Your table says tcg beside" in run.line("import random\nlesson.quiz()")
        (output,) = run.notebook.cells[-1].outputs
        assert len(json.dumps(output)) < 45_000
        page = output.data["text/html"]
        assert page.index("<summary>Answer") < page.index("<script>")
        assert "appendChild(script)" not in page, "it would load a script from another machine"
        run.line("lesson.quiz()")
        assert run.notebook.cells[-1].outputs[0].data == output.data, "it is the same each time"


def test_two_kernels_write_notes_at_once(home):
    write = (
        "import sys; from helpers.lesson.notes import notes\n"
        "for n in range(100):\n"
        "    with notes(3) as known: known['seconds'][sys.argv[1] + str(n)] = n"
    )
    both = [subprocess.Popen([sys.executable, "-c", write, name]) for name in "ab"]
    assert [one.wait() for one in both] == [0, 0]
    with notes(3) as known:
        assert len(known["seconds"]) == 200


def test_torn_notes_are_begun_anew(home):
    (home / "lessons").mkdir()
    (home / "lessons/04.json").write_text('{"pass')
    with notes(4) as known:
        assert known["passed"] == {}


def test_what_is_for_all_lessons_has_no_user(home, monkeypatch):
    monkeypatch.setenv(ledger.KERNEL, "1-abc")
    with ledger.for_all():
        common = ledger.record("files", "common", path=str(home / "common"))
    own = ledger.record("files", "own", path=str(home / "own"))
    assert (common.users, own.users) == ([], ["1-abc"])
    ledger.use(common, own)
    monkeypatch.setenv(ledger.KERNEL, "2-def")
    ledger.use(common, own)
    assert (common.users, own.users) == ([], ["1-abc", "2-def"])
    monkeypatch.delenv(ledger.KERNEL)
    ledger.use(own)
    assert [one.users for one in ledger.entries()] == [[], []], "a terminal asks for it"
