"""A rehearsal runs notebooks apart from all else, tells what it found, and leaves nothing."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from reading import PATHS
from waiting import until

from helpers import ledger, rehearse

REHEARSE = [sys.executable, "-m", "helpers", "rehearse"]


@pytest.fixture
def notebook(tmp_path):
    """Return a function that saves cells as a notebook, text as (heading, code) pairs."""

    def save(*parts):
        cells = []
        for heading, code in parts:
            cells += [new_markdown_cell(f"## {heading}\nWords."), new_code_cell(code)]
        path = tmp_path / "01-one.ipynb"
        nbformat.write(new_notebook(cells=cells), path)
        return path

    return save


@pytest.fixture
def apart(tmp_path, monkeypatch):
    """A folder for temporary files of the rehearsal; its path is short, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="r-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def homes(folder):
    return [path for path in folder.iterdir() if path.name.startswith("lab-")]


def test_the_report_names_times_memory_and_the_section(notebook):
    path = notebook(("Quick", "1"), ("Grow", "import time; big = bytes(300 << 20); time.sleep(3)"))
    before = path.read_bytes()
    with rehearse.room():
        done = rehearse.run(path)
    assert path.read_bytes() == before, "nothing is saved"
    assert [section for section, _ in done.cells] == ["Quick", "Grow"]
    assert done.cells[1][1] > 3 and done.peak_mb > 0 and not done.error
    done.cells[1:] = [("Grow", 11.4), ("Grow", 20.0)]
    shown = rehearse.report([done])
    assert "1 notebooks" in shown and "none failed" in shown
    assert "01    31 s  Grow, in 2 cells" in shown


def test_a_failure_is_named_with_its_cell_and_its_error(notebook):
    path = notebook(("Fine", "1"), ("Broken", "1 / 0"), ("Never", "2"))
    with rehearse.room():
        done = rehearse.run(path)
    assert done.error == "ZeroDivisionError: division by zero"
    shown = rehearse.report([done])
    assert "1 failed" in shown
    assert "FAILED 01-one, code cell 2, Broken: ZeroDivisionError" in shown


def test_a_kernel_that_dies_is_a_failure(notebook):
    with rehearse.room():
        done = rehearse.run(notebook(("End", "import os; os._exit(1)")))
    assert "died" in done.error.lower() and done.cells[-1][0] == "End"


def test_what_is_started_goes_elsewhere_and_is_stopped(home, notebook):
    start = "from helpers import ledger; ledger.spawn('a sleeper', ['sleep', '300'])"
    with rehearse.room():
        done, there = rehearse.run(notebook(("Start", start))), ledger.home()
        (entry,) = ledger.entries()
        assert there != home and entry.alive() and not done.error
    assert not entry.alive() and not there.exists() and ledger.home() == home


def test_notebooks_are_chosen_by_number():
    assert rehearse.chosen([]) == PATHS
    assert [path.name[:2] for path in rehearse.chosen([3, 1])] == ["01", "03"]
    with pytest.raises(RuntimeError, match="no notebook 77"):
        rehearse.chosen([77])


@pytest.mark.slow
def test_the_command_tells_people_and_is_interrupted_without_a_trace(home, apart):
    done = subprocess.run([*REHEARSE, "99"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "99-clean-up" in done.stdout and homes(apart) == []
    errors = apart / "errors"
    with open(errors, "w") as said:
        process = subprocess.Popen([*REHEARSE, "1"], stderr=said, stdout=subprocess.DEVNULL)
        until(lambda: "01-boot" in errors.read_text())
        (there,) = homes(apart)
        until(lambda: list(there.glob("vm/*/qmp.sock")))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert "is stopped" in errors.read_text() and homes(apart) == []
    mark = f"LAB_HOME={there}".encode()
    for one in psutil.process_iter():
        try:
            assert mark not in Path(f"/proc/{one.pid}/environ").read_bytes().split(b"\0"), one
        except OSError:
            continue
