"""Virtual machines: they boot, do what they are told, are saved and restored, and go away."""

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import ledger, machine, vm
from helpers.vm import kernel

pytestmark = pytest.mark.skipif(not machine.qemu(), reason="needs QEMU")
SERVER = "mkdir -p /www; echo hello > /www/index.html; httpd -p 80 -h /www"


@pytest.fixture(scope="module")
def guest(shared_home):
    with vm.boot(command=SERVER, name="guest", cpus=2, memory=160) as booted:
        yield booted


def fetch(url, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(url, timeout=1).read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def test_a_guest_has_its_own_kernel_processors_and_memory(guest):
    assert guest.run("uname -r").stdout.strip() == vm.kernels()[0].version
    assert guest.run("nproc").stdout.strip() == "2"
    memory = guest.memory()
    assert 100 < memory["guest_total_mb"] <= 160 < memory["rss_mb"]
    assert guest.run("hostname").stdout.strip() == "guest"


def test_a_command_gives_status_output_and_errors(guest):
    done = guest.run("echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    with pytest.raises(subprocess.CalledProcessError):
        guest.run("false", check=True)
    assert guest.run("cat", input="given").stdout == "given"
    assert guest.run("sleep 30", timeout=1).returncode == 137
    assert guest.run("echo still there").stdout == "still there\n"


def test_files_arrive_as_they_are(guest):
    data = random.Random(1).randbytes(3_000_001)
    guest.copy_in(data, "/tmp/data", mode=0o700)
    digest = guest.run("md5sum /tmp/data; stat -c %a /tmp/data").stdout.split()
    assert [digest[0], digest[2]] == [hashlib.md5(data).hexdigest(), "700"]


def test_the_file_of_a_running_program_is_replaced(guest):
    guest.run("cp /bin/busybox /tmp/sleep; /tmp/sleep 60 > /dev/null 2>&1 &")
    guest.copy_in(b"#!/bin/sh\necho new\n", "/tmp/sleep", mode=0o755)
    assert guest.run("/tmp/sleep").stdout == "new\n"


def test_a_published_port_answers_on_loopback_only(guest):
    assert fetch(guest.url()) == b"hello\n"
    listeners = [c for c in psutil.Process(guest.pid).net_connections() if c.status == "LISTEN"]
    assert listeners and all(c.laddr.ip == "127.0.0.1" for c in listeners)


def test_a_port_can_be_published_later(guest):
    guest.run("httpd -p 8080 -h /www")
    port = guest.publish(8080)
    assert fetch(f"http://127.0.0.1:{port}") == b"hello\n"


def test_a_guest_cannot_reach_out_unless_told(guest):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert guest.run(f"nc -w 2 10.0.2.2 {port} < /dev/null").returncode != 0


def test_the_console_is_kept(guest):
    assert "userspace after" in guest.console()


def test_a_machine_is_found_again_by_another_process(guest):
    script = "from helpers import vm; print([m.run('hostname').stdout for m in vm.running()])"
    again = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "guest" in again.stdout


def test_a_snapshot_is_restored_many_times(guest):
    guest.run("echo remembered > /tmp/note")
    saved = guest.snapshot("kept")
    guest.run("echo changed > /tmp/note")
    clones = [saved.restore(), saved.restore()]
    try:
        for clone in clones:
            assert clone.run("cat /tmp/note").stdout == "remembered\n"
            assert fetch(clone.url()) == b"hello\n"
        clones[0].run("echo mine > /tmp/note")
        assert clones[1].run("cat /tmp/note").stdout == "remembered\n"
        assert guest.run("cat /tmp/note").stdout == "changed\n"
    finally:
        for clone in clones:
            clone.stop()
        saved.delete()


def test_a_name_is_taken_only_once(guest):
    with pytest.raises(vm.VMError, match="guest runs already"):
        vm.boot(name="guest")
    assert guest.alive()


def test_two_kernels_and_python_run_side_by_side(home):
    newest = vm.kernels()[-1]
    with vm.boot("python", memory=384, kernel=newest, ports=()) as other:
        asked = other.run("python3 -c 'import platform; print(platform.release())'")
        assert asked.stdout.strip() == newest.version, asked.stderr


def test_a_disk_is_there_and_files_are_added(home):
    with vm.boot(disk_mb=32, files={"/tools/hello": b"#!/bin/sh\necho hi\n"}, ports=()) as guest:
        assert guest.run("/tools/hello").stdout == "hi\n"
        assert guest.run("cat /sys/block/vda/size").stdout.strip() == str(32 * 2048)


def test_a_machine_that_does_not_fit_is_refused(home):
    with pytest.raises(vm.VMError, match=r"10000000 MB does not fit: \d+ MB are free"):
        vm.boot(memory=10_000_000)
    assert ledger.entries() == []


def test_a_taken_port_is_named_and_nothing_stays(home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(vm.VMError, match=f"Port {port} of this machine is in use"):
            vm.boot(ports={80: port})
    assert ledger.entries() == [] and list((home / "vm").iterdir()) == []


def test_too_little_memory_is_told_from_the_console(home):
    with pytest.raises(vm.VMError, match="Kernel panic.*memory.*at least 96 MB"):
        vm.boot(memory=64)
    assert ledger.entries() == []


def test_a_missing_qemu_is_told(home, monkeypatch):
    monkeypatch.setattr(machine, "qemu", lambda: None)
    with pytest.raises(vm.VMError, match="QEMU is not installed; this installs it: "):
        vm.boot()


def test_a_dead_machine_is_told(home):
    guest = vm.boot(ports=())
    os.kill(guest.pid, signal.SIGKILL)
    while guest.alive():
        time.sleep(0.01)
    with pytest.raises(vm.VMError, match="is not running any more"):
        guest.run("true")
    guest.stop()


def test_a_kernel_killed_during_boot_leaves_nothing_after_down(home):
    script = "from helpers import vm; vm.boot(name='orphan')"
    starter = subprocess.Popen([sys.executable, "-c", script])
    while not [e for e in ledger.entries("process") if e.pid]:
        time.sleep(0.005)
    starter.kill()
    starter.wait()
    (entry,) = ledger.entries("process")
    assert entry.alive()
    assert ledger.down() == []
    assert not entry.alive() and not (home / "vm/orphan").exists()


def test_an_unknown_image_is_refused_with_those_there_are(home):
    with pytest.raises(ValueError, match="no image 'windows'; there are: busybox, python"):
        vm.boot("windows")


@given(st.binary(max_size=2000))
def test_what_is_no_kernel_is_refused(data):
    with pytest.raises(ValueError):
        kernel.unpacked(data)
