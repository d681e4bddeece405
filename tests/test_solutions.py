"""Each exercise's solution passes its check (nbval sees to it that a blank answer does not)."""

import os
import subprocess
import sys
import tempfile

import nbclient
import pytest
from reading import PATHS, exercises, plain_text, read, where

WITH_EXERCISES = [path for path in PATHS if any(exercises(read(path)))]


@pytest.fixture
def state_of_its_own(monkeypatch):
    """Keep the state apart from the learner's, and see that nothing is left."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        monkeypatch.setenv("LAB_HOME", folder)
        yield
        down = [sys.executable, "-m", "helpers", "down"]
        left = subprocess.run(down, capture_output=True, text=True, env=os.environ)
        assert left.returncode == 0, left.stdout + left.stderr


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_EXERCISES, ids=lambda path: path.stem)
def test_solutions_pass(path, state_of_its_own):
    notebook = read(path)
    answered = list(exercises(notebook))
    for starter, _, solution in answered:
        starter.source = solution
    resources = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(
        notebook, timeout=900, coalesce_streams=True, resources=resources
    ).execute()
    for starter, check, _ in answered:
        assert plain_text(check).startswith("pass"), (
            f"{where(notebook, starter)}, solved: {plain_text(check)}"
        )
