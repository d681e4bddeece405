"""What is started is recorded first, and can always be stopped."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from helpers import ledger


def test_a_process_is_recorded_and_stopped_with_its_children(home):
    script = "sleep 300 & setsid sleep 301 & wait"
    process, entry = ledger.spawn("three sleepers", ["sh", "-c", script])
    while len(ledger._processes(entry)) < 3:
        time.sleep(0.01)
    pids = [one.pid for one in ledger._processes(entry)]
    assert process.pid in pids and [e.name for e in ledger.entries()] == ["three sleepers"]
    assert ledger.down() == []
    assert not [pid for pid in pids if psutil.pid_exists(pid) and _alive(pid)]


def test_a_process_that_ignores_the_polite_signal_is_killed(home):
    _, entry = ledger.spawn("stubborn", ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
    time.sleep(0.2)
    assert ledger.stop(entry, patience=0.5)
    assert not entry.alive()


def test_what_a_dying_process_still_starts_is_killed_too(home):
    busy = "trap '' TERM; while :; do sleep 1 & sleep 0.01; done"
    _, entry = ledger.spawn("hydra", ["sh", "-c", busy])
    time.sleep(0.2)
    assert ledger.stop(entry, patience=0.5)
    assert not entry.alive()


def test_what_is_started_while_others_are_stopped_is_stopped_too(home):
    again = "while True: ledger.spawn('work', ['sleep', '300'])[0].wait()"
    ledger.spawn("keeper", [sys.executable, "-c", f"from helpers import ledger\n{again}"])
    while not any(entry.pid for entry in ledger.entries() if entry.name == "work"):
        time.sleep(0.01)
    assert ledger.down() == []


def test_a_program_that_does_not_exist_leaves_no_entry(home):
    with pytest.raises(FileNotFoundError):
        ledger.spawn("nothing", ["/no/such/program"])
    assert ledger.entries() == []


def test_a_reused_process_number_is_left_alone(home):
    bystander = subprocess.Popen(["sleep", "300"])
    try:
        entry = ledger.record("process", "long gone")
        entry.pid = bystander.pid  # as if the system had given the number to somebody else
        entry.save()
        assert ledger.down() == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_down_works_after_the_starting_process_was_killed(home):
    script = (
        "import time; from helpers import ledger;"
        "ledger.spawn('orphan', ['sleep', '300']); print('started', flush=True); time.sleep(300)"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert starter.stdout.readline() == b"started\n"
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    (entry,) = ledger.entries()
    assert entry.alive()
    assert ledger.down() == []
    assert not entry.alive()


def test_the_newest_is_stopped_first(home, monkeypatch):
    for name in ("first", "second", "third"):
        ledger.record("files", name, path=str(home / name))
    order = []
    stop = ledger.stop
    monkeypatch.setattr(ledger, "stop", lambda entry: order.append(entry.name) or stop(entry))
    ledger.down()
    assert order == ["third", "second", "first"]


def test_files_are_removed_and_down_can_be_repeated(home):
    folder = home / "made"
    ledger.record("files", "made", path=str(folder))
    (folder / "below").mkdir(parents=True)
    assert ledger.down() == [] and not folder.exists()
    assert ledger.down() == []


def test_containers_on_an_engine_that_does_not_answer_are_named_not_forgotten(home):
    entry = ledger.record(
        "engine", "containers", env={"DOCKER_HOST": "unix:///no/engine.sock"}, label="lab=x"
    )
    assert ledger.down() == ["containers"]
    entry.forget()


def test_a_torn_entry_does_not_stop_the_others(home):
    ledger.record("files", "good", path=str(home / "good"))
    (home / "ledger" / "0-torn.json").write_text('{"id": "0-to')
    assert ledger.down() == []


def _alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_home_lets_only_its_owner_in(home):
    assert os.stat(home).st_mode & 0o077 == 0
