"""A checkpoint clears the room, starts what a notebook needs, and takes what came before."""

import subprocess
import sys

import pytest
from reading import PATHS

from helpers import ledger

notes = pytest.importorskip("helpers.lesson.notes")
checkpoint = pytest.importorskip("helpers.checkpoint")
pages = pytest.importorskip("helpers.lesson.pages")


def run(*words):
    command = [sys.executable, "-m", "helpers", "checkpoint", *words]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_what_a_notebook_needs_is_read_from_it():
    found = {int(path.name[:2]): [] for path in PATHS}
    for number, what in found.items():
        what += [name for name, _ in checkpoint.needs(number)]
    assert found[1] == []
    assert found[7] == ["AWS"]
    assert found[9] == ["Kubernetes"]
    assert found[13] == ["the Docker Engine", "AWS"]
    assert "the image python:3-slim" in found[5]
    for path in PATHS:  # whoever starts something elsewhere is noticed here
        starts = [word in path.read_text() for word in ("cloud.start(", "cluster.start(")]
        number = int(path.name[:2])
        assert starts == [word in found[number] for word in ("AWS", "Kubernetes")], path.name


def test_the_room_is_cleared_only_if_wanted_and_ready_in_the_end(home):
    _, entry = ledger.spawn("a sleeper", ["sleep", "300"])
    with notes.notes(2) as known:
        mine = pages.page(2).exercises[0]
        known["passed"][mine] = 1.0
    kept = run("7")
    assert kept.returncode == 0, kept.stderr
    assert "a sleeper" in kept.stdout and "--yes" in kept.stdout and entry.alive()
    done = run("7", "--yes")
    assert done.returncode == 0, done.stderr
    assert not entry.alive()
    assert "Ready: AWS." in done.stdout and "07-use-aws" in done.stdout
    assert [one.name for one in ledger.entries("process")] == ["local cloud"]
    for number in range(7):
        with notes.notes(number) as known:
            exercises = {*pages.page(number).exercises}
            assert known["passed"].keys() >= exercises
            assert {*known.get("taken", [])} == exercises - ({mine} if number == 2 else set())
            assert number != 2 or known["passed"][mine] == 1.0
    with notes.notes(7) as known:
        assert not known["passed"]
    assert run("55").stderr == "There is no notebook 55.\n"
