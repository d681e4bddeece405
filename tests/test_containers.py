"""A Docker Engine answers on every rung, and only what is ours is removed."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import docker
import pytest

from helpers import containers, ledger, machine, vm
from helpers.containers import engine_vm

needs_qemu = pytest.mark.skipif(not machine.qemu(), reason="needs QEMU")
needs_docker = pytest.mark.skipif(not machine.docker_socket(), reason="needs the machine's Docker")


def sh(command, check=True):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module", params=["machine", "vm"])
def engine(request, shared_home):
    if request.param == "machine" and not machine.docker_socket():
        pytest.skip("needs the machine's Docker")
    if request.param == "vm" and not machine.qemu():
        pytest.skip("needs QEMU")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ENGINE", request.param)
        yield containers.engine()


def test_cli_and_sdk_reach_the_same_engine(engine):
    assert sh("docker version --format '{{.Server.Version}}'").stdout.strip() == engine.version
    assert docker.from_env().version()["Version"] == engine.version
    assert containers.engine() == engine  # asking again changes nothing


def test_a_base_image_is_there_and_says_where_it_came_from(engine):
    for name in ("debian:stable-slim", "python:3-slim"):
        origin = containers.image(name)
        assert origin in ("already here", "pulled") or "stand-in built from" in origin
    said = sh("docker run --rm --label $LAB_LABEL python:3-slim python -c 'print(6*7)'")
    assert said.stdout == "42\n"


def test_memory_is_limited(engine):
    containers.image("python:3-slim")
    sh(
        "docker run --name big --label $LAB_LABEL -m 32m python:3-slim "
        "python -c 'bytearray(10**8)'",
        check=False,
    )
    state = docker.from_env().containers.get("big").attrs["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (137, True)
    sh("docker rm big")


def test_a_published_port_answers_here_and_is_freed(engine):
    containers.image("python:3-slim")
    sh(
        "docker run -d --name web --label $LAB_LABEL -p 127.0.0.1::8000 python:3-slim "
        'python -c \'import http.server as h; h.HTTPServer(("", 8000), '
        "h.SimpleHTTPRequestHandler).serve_forever()'"
    )
    address = sh("docker port web 8000").stdout.strip()
    for attempt in range(100):
        try:
            assert urllib.request.urlopen(f"http://{address}", timeout=5).status == 200
            break
        except OSError:
            assert attempt < 99
            sh("docker exec web true")
    sh("docker rm -f web")
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://{address}", timeout=5)


def test_a_taken_port_fails_the_run_as_it_should(engine):
    containers.image("debian:stable-slim")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = sh(
            f"docker run --rm --label $LAB_LABEL -p 127.0.0.1:{port}:80 debian:stable-slim true",
            check=False,
        )
    assert done.returncode == 125
    assert "port is already allocated" in done.stderr or "address already in use" in done.stderr


@needs_docker
def test_down_removes_ours_and_nobody_elses(home, monkeypatch):
    monkeypatch.setenv("LAB_ENGINE", "machine")
    containers.engine()
    containers.image("debian:stable-slim")
    mine = "--label $LAB_LABEL"
    sh("docker tag debian:stable-slim bystander-image:1")
    sh("docker network create bystander && docker volume create bystander")
    sh("docker run -d --name bystander bystander-image:1 sleep 300")
    try:
        sh(f"docker run -d --name ours {mine} bystander-image:1 sleep 300")
        sh(f"docker network create {mine} ours && docker volume create {mine} ours")
        # The stand-in image is ours; tagged by somebody else and in use, it cannot be removed.
        ledger.down()
        names = sh(
            "docker ps -a --format '{{.Names}}'; docker network ls --format '{{.Name}}'"
        ).stdout
        names += sh("docker volume ls --format '{{.Name}}'").stdout
        assert names.split().count("bystander") == 3 and "ours" not in names.split()
        assert sh("docker inspect -f '{{.State.Running}}' bystander").stdout == "true\n"
    finally:
        sh("docker rm -f bystander; docker network rm bystander; docker volume rm bystander", False)
        sh("docker rmi -f bystander-image:1", False)


@needs_qemu
def test_an_engine_that_died_is_brought_back(home, monkeypatch):
    monkeypatch.setenv("LAB_ENGINE", "vm")
    containers.engine()
    (guest,) = vm.running()
    guest.run("kill -9 $(pidof dockerd)")
    assert sh("docker ps", check=False).returncode != 0
    containers.engine()
    assert sh("docker ps").returncode == 0
    (guest,) = vm.running()
    guest.stop()
    containers.engine()
    assert sh("docker ps").returncode == 0


@needs_qemu
def test_the_engine_in_a_vm_is_for_its_owner_alone(home, monkeypatch):
    monkeypatch.setenv("LAB_ENGINE", "vm")
    found = containers.engine()
    address = found.environment["DOCKER_HOST"]
    assert not machine.docker_version(address)  # without the key
    key = found.environment["DOCKER_CERT_PATH"] + "/key.pem"
    assert os.stat(key).st_mode & 0o077 == 0
    clock = vm.running()[0].run("date +%s").stdout
    assert abs(int(clock) - int(sh("date +%s").stdout)) < 5


@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs a Debian archive")
def test_a_machine_without_the_docker_command_gets_one(tmp_path, monkeypatch):
    for folder in os.environ["PATH"].split(":"):
        for program in Path(folder).glob("*"):
            if program.name != "docker" and not (tmp_path / program.name).exists():
                (tmp_path / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not shutil.which("docker")
    engine_vm.provide_command()
    assert sh("docker --version").stdout.startswith("Docker version")


def test_a_wanted_engine_that_does_not_answer_is_told(home, monkeypatch):
    monkeypatch.setenv("LAB_ENGINE", "machine")
    monkeypatch.setattr(machine, "docker_socket", lambda: None)
    with pytest.raises(containers.EngineError, match="Docker does not answer: .* Try: "):
        containers.engine()


@pytest.fixture(params=["here", "in a VM"])
def place(request, home, monkeypatch):
    if request.param == "in a VM":
        if not machine.qemu():
            pytest.skip("needs QEMU")
        monkeypatch.setattr(machine, "namespaces", lambda: machine.Probe(False, "for the test"))
    elif not (machine.namespaces().works and machine.limits().works):
        pytest.skip("this kernel refuses namespaces or limits")
    return containers.place()


def test_a_container_from_scratch_is_isolated_and_limited(place):
    inside = "hostname; ps | wc -l; ls /; id -u; ip -o link | wc -l"
    lines = place.run(f"$BOX $ROOT sh -c '{inside}'").stdout.split()
    assert lines[0] == "box" and int(lines[1]) <= 6 and "etc" not in lines
    assert lines[-2:] == ["0", "1"]
    hungry = "head -c 100m /dev/zero | tail | wc -c"
    eaten = place.run(f"$BOX --memory 24 $ROOT sh -c '{hungry}'").stdout
    assert eaten.strip() == "0"  # tail was killed for the memory it took
    assert place.run("$BOX $ROOT sh -c 'exit 3'", check=False).returncode == 3
    with pytest.raises(RuntimeError, match="exit status 126: namespaces: .*no-such"):
        place.run("$BOX $ROOT no-such-program")


def test_the_from_scratch_container_works_on_its_own(home):
    if not machine.namespaces().works:
        pytest.skip("this kernel refuses namespaces")
    place = containers.place(limits=False)
    done = sh(f"{sys.executable} {place.script} {place.root} sh -c 'echo $$'")
    assert done.stdout == "1\n"
    shutil.rmtree(place.root)


@needs_qemu
def test_the_machine_of_a_place_makes_room_only_where_memory_is_scarce(home, monkeypatch, capsys):
    monkeypatch.setattr(machine, "namespaces", lambda: machine.Probe(False))
    there = containers.place().machine
    containers.release(needed_mb=1)
    assert there.alive() and not capsys.readouterr().out.endswith("were free.\n")
    containers.release(needed_mb=10**7)
    assert not there.alive() and "scratch is stopped" in capsys.readouterr().out
    containers.release(needed_mb=10**7)  # and nothing is there any more
