"""The probes try the thing itself, and the cache is filled once or not at all."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import machine


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    return machine.cache()


def test_something_is_made_once(cache, capsys):
    made = []

    def make(draft):
        made.append(draft)
        draft.write_text("x")

    first = machine.cached("a/thing", make, what="Making a thing", seconds=1)
    second = machine.cached("a/thing", make, what="Making a thing", seconds=1)
    assert first == second and first.read_text() == "x" and len(made) == 1
    assert capsys.readouterr().out.startswith("Making a thing (once, about 1 s) … done in")


def test_two_at_once_make_it_once(cache):
    script = (
        "import time; from helpers import machine\n"
        "def make(d): time.sleep(0.5); d.write_text('x'); print('MADE')\n"
        "machine.cached('one', make, what='Making')"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert "".join(run.communicate()[0] for run in runs).count("MADE") == 1


@pytest.mark.parametrize("works", [True, False])
def test_podman_is_named_where_there_is_no_docker(tmp_path, monkeypatch, works):
    program = tmp_path / "podman"
    program.write_text(f"#!/bin/sh\necho broken >&2\n{'true' if works else 'exit 1'}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + ":/bin-without-docker")
    monkeypatch.setattr(machine, "docker_socket", lambda: None)
    machine.podman.cache_clear()
    assert machine.podman().works == works
    assert ("Podman" in machine.docker_engine().why) == works
    machine.podman.cache_clear()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_said_and_leaves_nothing(cache):
    def make(draft):
        draft.mkdir()
        (draft / "part").write_text("half of it")
        Path("/dev/full").write_bytes(bytes(8192))

    with pytest.raises(OSError, match=r"disk is full .* while making a thing: .*LAB_CACHE"):
        machine.cached("thing", make, what="Making a thing")
    assert [path.name for path in cache.iterdir()] == [".thing.lock"]


def test_what_an_old_recipe_made_goes_once_nobody_uses_it(cache):
    def made(name):
        return machine.cached(name, lambda draft: draft.mkdir(), what="x", replaces="it-?")

    for name, days in (("it-1", 8), ("it-2", 6), ("it-3", 8), ("other", 8)):
        path = made(name)
        os.utime(path, (then := time.time() - days * 86400, then))
    made("it-3")  # another course here still uses it
    made("it-4")
    assert {path.name for path in cache.glob("[!.]*")} == {"it-2", "it-3", "it-4", "other"}


def test_a_killed_maker_leaves_room_for_the_next(cache):
    (cache / ".thing.draft").mkdir()
    (cache / ".thing.draft/part").write_text("of one that was killed")
    made = machine.cached("thing", lambda draft: draft.mkdir(), what="Making")
    assert list(made.iterdir()) == []


def test_kvm_is_believed_only_after_a_guest_ran(cache, monkeypatch):
    if not machine.qemu():
        pytest.skip("needs QEMU")
    machine.kvm.cache_clear()
    probe = machine.kvm()
    if probe.works:
        assert machine._run_boot_sector("kvm", 1.0).works
    else:
        assert probe.why
    machine.kvm.cache_clear()


def test_a_guest_that_does_not_run_is_told_with_qemus_reason():
    if not machine.qemu():
        pytest.skip("needs QEMU")
    assert machine._run_boot_sector("tcg", 20).works
    assert "no-such" in machine._run_boot_sector("no-such", 20).why
    assert "within" in machine._run_boot_sector("tcg", 0.001).why


def test_an_engine_is_believed_only_if_it_answers(tmp_path):
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        assert not machine.docker_version(f"unix://{path}")  # a socket nobody listens on
        silent.listen()

        def refuse():
            link, _ = silent.accept()
            link.recv(100)
            link.sendall(b"HTTP/1.0 503 Service Unavailable\r\n\r\n")
            link.close()

        threading.Thread(target=refuse).start()
        assert not machine.docker_version(f"unix://{path}")


@given(st.text(max_size=30))
def test_no_address_makes_the_probe_raise(address):
    if not address.startswith(("unix:///", "tcp://")):
        assert machine.docker_version(address) == ""


def test_the_survey_gives_a_reason_for_every_lower_rung():
    best = {"kvm", "docker", "namespaces", "registry"}
    for part in machine.survey():
        assert part.rung and part.real
        assert part.rung in best or part.why


def test_a_missing_qemu_is_told_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    machine.qemu.cache_clear()
    try:
        part = machine.survey()[0]
        assert part.rung == "none" and part.command == machine.QEMU_COMMAND
    finally:
        machine.qemu.cache_clear()


def test_cores_respect_a_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    everything = machine.cores()
    (tmp_path / "cpu.max").write_text("max 100000")
    assert machine.cores() == everything
    (tmp_path / "cpu.max").write_text("100000 100000")
    assert machine.cores() == 1
    assert everything <= os.cpu_count()


@pytest.mark.parametrize(
    "files",
    [
        {
            "memory.max": "2147483648",
            "memory.current": "1610612736",
            "memory.stat": "anon 1\nactive_file 268435456\ninactive_file 268435456",
        },
        {
            "memory/memory.limit_in_bytes": "2147483648",
            "memory/memory.usage_in_bytes": "1610612736",
            "memory/memory.stat": "total_inactive_file 0\ntotal_active_file 536870912",
        },
    ],
    ids=["version 2", "version 1"],
)
def test_in_a_container_its_limit_and_what_it_holds_count(tmp_path, monkeypatch, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    facts = machine.facts()
    if facts["memory_mb"] < 2048:
        pytest.skip("this machine has less memory than the container of the test")
    assert (facts["memory_mb"], facts["memory_free_mb"]) == (2048, 1024)


def test_fewer_processors_can_be_told(monkeypatch):
    monkeypatch.setenv("LAB_CORES", "1")
    assert machine.cores() == 1
    assert machine.facts()["cores"] == 1
