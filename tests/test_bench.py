"""The benchmark's program, its places and its tables. Nothing here depends on a speed."""

import math
import subprocess
import urllib.request
from pathlib import Path

import pytest

from helpers import bench, ledger, machine

UNITS = {
    "integer": "Mops/s",
    "lu": "GFLOP/s",
    "triad": "GB/s",
    "random_access": "MUP/s",
    "syscall": "ns",
    "page_fault": "ns",
    "fork": "µs",
    "sequential_write": "MiB/s",
    "random_read": "IOPS",
    "random_write": "IOPS",
}
DISK = ("sequential_write", "random_read", "random_write")
COLUMNS = "row value unit place rung repeat note machine time".split()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A folder of its own for each test, which must leave nothing behind."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "lab"))
    yield tmp_path / "lab"
    assert ledger.down() == []


def run(*words):
    command = [bench.binary(), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_rows(tmp_path):
    done = run("rows", 0.02, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split(",") for line in done.stdout.splitlines()]
    assert {row: unit for row, _, unit, _ in lines} == UNITS
    for row, value, _, note in lines:
        if row in DISK and not value:
            assert note  # says why it could not be measured here
        else:
            assert math.isfinite(float(value)) and float(value) > 0, row
    assert list(tmp_path.iterdir()) == []


def test_chosen_rows_come_in_the_order_asked_for(tmp_path):
    done = run("rows", 0.01, tmp_path, "syscall", "integer")
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == ["syscall", "integer"]


def test_memory_is_no_disk():
    if " /dev/shm tmpfs " not in Path("/proc/mounts").read_text():
        pytest.skip("no /dev/shm here")
    done = run("rows", 0.01, "/dev/shm", *DISK)
    assert done.stdout.splitlines() == [f"{row},,{UNITS[row]},memory and no disk" for row in DISK]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("dance",),
        ("true", "false"),
        ("rows", "1"),
        ("rows", "0", "."),
        ("rows", "many", "."),
        ("rows", "nan", "."),
        ("rows", "0.01", "/does/not/exist"),
        ("rows", "0.01", ".", "integer", "no-such-row"),
        ("serve", "99999"),
        ("serve", "localhost:80"),
        ("load", "127.0.0.1", "port", "1"),
        ("load", "127.0.0.1", "80", "1", "0"),
    ],
    ids=" ".join,
)
def test_bad_arguments(words):
    done = run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("bench: ") and done.stderr.count("\n") == 1


def test_true():
    done = run("true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def port():
    """The port of a server that runs on loopback."""
    with subprocess.Popen([bench.binary(), "serve", "0"], stdout=subprocess.PIPE) as server:
        word, number = server.stdout.readline().split()
        assert word == b"ready"
        yield int(number)
        server.terminate()


@pytest.mark.parametrize("connections", [1, 5])
def test_serve_and_load(port, connections):
    done = run("load", "127.0.0.1", port, 0.1, connections)
    assert done.returncode == 0, done.stderr
    lines = [line.split(",") for line in done.stdout.splitlines()]
    units = {"latency_median": "µs", "latency_p99": "µs", "throughput": "requests/s"}
    assert {row: unit for row, _, unit, _ in lines} == units
    assert all(float(value) > 0 for _, value, _, _ in lines)


def test_serve_speaks_http(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        assert answer.status == 200
        assert answer.read() == b"Hello from one process.\n"


def test_port_in_use(port):
    done = run("serve", port)
    assert done.returncode == 1
    assert str(port) in done.stderr and done.stderr.count("\n") == 1


def test_nobody_answers(port):
    (unused,) = machine.free_ports(1)
    done = run("load", "127.0.0.1", unused, 0.1)
    assert done.returncode == 1
    assert str(unused) in done.stderr and done.stderr.count("\n") == 1


def test_unknown_places_and_rows():
    with pytest.raises(bench.BenchError, match="no place 'cloud'.*process"):
        bench.compare(places=["cloud"])
    with pytest.raises(bench.BenchError, match="no row speed"):
        bench.compare(places=["process"], rows=["speed"], repeats=1, seconds=0.01)


def test_results_are_saved(home):
    results = bench.compare(places=["process"], rows=["syscall"], repeats=2, seconds=0.01)
    assert list(results.columns) == COLUMNS
    assert list(results.repeat) == [1, 2]
    assert f"{machine.cores()} cores" in results.machine[0]
    (saved,) = (home / "results").glob("compare-*.csv")
    assert len(saved.read_text().splitlines()) == 3
    assert list(bench.summary(results)["count"]) == [2]


def test_published():
    figures = bench.published()
    assert list(figures.columns) == "row place value unit source machine note".split()
    assert (figures.drop(columns="value") != "").all(axis=None)
    assert (figures.value > 0).all()
    assert set(figures.place) <= {"process", "docker", "vm"}


@pytest.mark.skipif(not machine.qemu(), reason="no QEMU here")
@pytest.mark.slow
def test_every_place():
    rows = ["integer", "fork", "random_read"]
    results = bench.compare(rows=rows, repeats=1, seconds=0.02)
    assert list(results.place.unique()) == list(bench.PLACES)
    assert [*results.row] == rows * len(bench.PLACES)
    rungs = results.groupby("place").rung.unique().map(set)
    assert rungs["process"] == {"process"}
    assert rungs["namespaces"] <= {"namespaces", "namespaces in a VM"}
    assert rungs["docker"] <= {"docker", "docker in a VM"}
    assert rungs["vm"] <= {"kvm", "tcg", "hvf"}
    assert (results.value.notna() | (results.note != "")).all()
    assert results[results.row != "random_read"].value.gt(0).all()


@pytest.mark.skipif(not machine.qemu(), reason="no QEMU here")
@pytest.mark.slow
def test_starts_memory_and_density():
    found = bench.starts(repeats=1)
    assert set(found[found.row == "start"].place) == set(bench.PLACES)
    assert set(found[found.row == "first_reply"].place) == set(bench.SERVERS)
    assert found.value.gt(0).all()
    memory = bench.memory_per_instance().set_index("place").value
    assert memory["process"] < memory["docker"] < memory["vm"]
    assert list(bench.density("vm restored", most=2).instance) == [1, 2]
    assert len(bench.density("process", memory_mb=0.001)) == 1
    assert set(bench.http(["docker"], repeats=1, seconds=0.1).row) == {
        "latency_median",
        "latency_p99",
        "throughput",
    }
