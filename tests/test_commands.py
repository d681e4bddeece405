"""The commands of the course, as a terminal sees them."""

import json
import os
import subprocess
import sys

import pytest

from helpers import ledger, machine


def run(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "helpers", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_doctor_tells_people_and_programs_the_same(home):
    shown, told = run("doctor"), json.loads(run("doctor", "--json").stdout)
    for part in told["parts"]:
        assert part["part"] in shown.stdout and part["rung"] in shown.stdout
    assert told["machine"]["cores"] == machine.cores()


def test_status_and_down(home):
    assert run("status").stdout == "Nothing runs.\n"
    ledger.spawn("a sleeper", ["sleep", "300"])
    assert "a sleeper" in run("status").stdout
    told = json.loads(run("status", "--json").stdout)
    (entry,) = told["runs"]
    assert told["costs"] == []
    assert entry["name"] == "a sleeper" and entry["alive"] and entry["pid"]
    first, second = run("down"), run("down")
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.startswith("Nothing is left")
    assert not psutil_alive(entry["pid"])


def test_status_tells_what_memory_is_held(home):
    program = "x = bytearray(60 << 20); print(len(x), flush=True); import time; time.sleep(300)"
    words = [sys.executable, "-c", program]
    process, entry = ledger.spawn("a big one", words, stdout=subprocess.PIPE)
    process.stdout.readline()
    told = json.loads(run("status", "--json").stdout)
    (known,) = told["runs"]
    assert 60 <= known["memory_mb"] < 120
    assert 0 < told["machine"]["memory_free_mb"] < told["machine"]["memory_mb"]
    shown = run("status").stdout
    assert "Memory held by all of it" in shown and "MB are free" in shown
    process.stdout.close()


def test_down_fails_and_names_what_is_left(home):
    entry = ledger.record(
        "engine", "containers", env={"DOCKER_HOST": "unix:///no/engine.sock"}, label="lab=x"
    )
    done = run("down")
    assert done.returncode == 1 and "Could not be stopped: containers." in done.stdout
    entry.forget()


@pytest.mark.skipif(not machine.docker_socket(), reason="needs the machine's Docker")
def test_env_leads_a_terminal_to_the_engine(home):
    assert "answers (docker)" in run("up").stdout
    line = f'eval "$({sys.executable} -m helpers env)"; docker version -f ok; echo $LAB_LABEL'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "ok" and "lab=" in done.stdout


def test_every_command_has_help_and_bad_words_are_refused(home):
    for command in "doctor up env status down prepare view fault rehearse checkpoint".split():
        assert run(command, "--help").returncode == 0
    assert run("dance").returncode == 2 and "invalid choice" in run("dance").stderr
    assert run().returncode == 2


def test_what_goes_wrong_is_one_sentence(home):
    done = run("up", LAB_ENGINE="machine", PATH="/nowhere", LAB_DOCKER_HOST="unix:///no.sock")
    if done.returncode:
        assert len(done.stderr.strip().splitlines()) == 1


def psutil_alive(pid):
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
