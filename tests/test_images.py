"""Base images, the registry, and the web API's image: built, pushed, pulled, and cleaned up."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest

from helpers import containers, ledger, machine, vm
from helpers.containers import registries

APP = Path(__file__).resolve().parents[1] / "data/app"


def sh(command, check=True, **options):
    done = subprocess.run(command, shell=True, capture_output=True, text=True, **options)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def build(folder, *words, name="api-test", check=True):
    """Build without asking for BuildKit, and return the log."""
    command = f"docker build --force-rm --label $LAB_LABEL -t {name} {' '.join(words)} {folder}"
    done = sh(command, check=check)
    return done.stdout + done.stderr


@pytest.fixture
def engine(home, monkeypatch):
    """The machine's own Engine, with a base image."""
    if not machine.docker_socket():
        pytest.skip("needs the machine's Docker")
    monkeypatch.setenv("LAB_ENGINE", "machine")
    containers.engine()
    containers.image("python:3-slim")
    return containers.engine()


@pytest.fixture
def app(tmp_path):
    """A copy of the web API."""
    return Path(shutil.copytree(APP, tmp_path / "app"))


def test_the_api_is_built_answers_and_a_new_line_rebuilds_one_layer(engine, app):
    build(app)
    client = docker.from_env()
    first = client.images.get("api-test").attrs["RootFS"]["Layers"]
    assert build(app).count("Using cache") >= 10 or "CACHED" in build(app)
    source = (app / "api.py").read_text()
    (app / "api.py").write_text(source.replace('VERSION = "1"', 'VERSION = "2"'))
    log = build(app)
    assert "Collecting" not in log  # nothing was installed again
    second = client.images.get("api-test").attrs["RootFS"]["Layers"]
    assert first[:-1] == second[:-1] and first[-1] != second[-1]
    options = "--env JWT_SECRET=known-to-everybody-and-used-by-this-test-alone --read-only"
    said = sh(
        f"docker run --rm --label $LAB_LABEL {options} api-test python -c "
        '\'import api; print(api.app.test_client().get("/").json["version"])\''
    )
    assert said.stdout == "2\n"
    refused = sh("docker run --rm --label $LAB_LABEL api-test", check=False)
    assert refused.returncode != 0 and "JWT_SECRET is not set" in refused.stderr
    assert "Traceback" not in refused.stderr
    user = sh("docker inspect -f '{{.Config.User}}' api-test").stdout
    assert not user.startswith(("0", "root", "\n"))


@pytest.mark.parametrize("rung", ["machine", "vm"])
def test_an_image_goes_to_the_registry_and_comes_back(rung, home, monkeypatch):
    if not (machine.docker_socket() if rung == "machine" else machine.qemu()):
        pytest.skip("there is no such Engine here")
    monkeypatch.setenv("LAB_ENGINE", rung)
    containers.engine()
    containers.image("debian:stable-slim")
    registry = containers.registry()
    assert containers.registry() == registry
    assert registry.url.startswith("http://127.0.0.1:")
    name = f"{registry.address}/course/base:1"
    sh(f"docker tag debian:stable-slim {name}")
    digest = re.search(r"digest: (sha256:\w{64})", sh(f"docker push {name}").stdout).group(1)
    with urllib.request.urlopen(f"{registry.url}/v2/course/base/tags/list", timeout=5) as answer:
        assert json.load(answer) == {"name": "course/base", "tags": ["1"]}
    again = f"{registry.address}/course/base@{digest}"
    sh(f"docker rmi {name}; docker pull {again}")
    assert sh(f"docker run --rm --label $LAB_LABEL {again} echo here").stdout == "here\n"
    sh(f"docker rmi -f {again}")


def test_many_who_ask_at_once_get_one_registry(home):
    with ThreadPoolExecutor() as pool:
        ports = list(pool.map(lambda _: registries.port(), range(4)))
    (entry,) = [e for e in ledger.entries("process") if e.name == "image registry"]
    assert ports == [entry.facts["port"]] * 4


def test_a_registry_that_was_killed_comes_back_with_its_images(engine):
    before = containers.registry()
    name = f"{before.address}/kept:1"
    sh(f"docker tag debian:stable-slim {name}; docker push {name}")
    (entry,) = [e for e in ledger.entries("process") if e.name == "image registry"]
    os.kill(entry.pid, 9)
    while entry.alive():
        os.waitpid(entry.pid, 0)
    after = containers.registry()
    with urllib.request.urlopen(f"{after.url}/v2/_catalog", timeout=5) as answer:
        assert "kept" in json.load(answer)["repositories"]
    sh(f"docker rmi {name}")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("FROM python:3-slim\nRUNN true", r"(?i)unknown instruction: RUNN"),
        ("FROM python:3-slim\nRUN exit 7", r"returned a non-zero code: 7|exit code: 7"),
        ("FROM python:3-slim\nCOPY absent /", r"absent.*(no such file|not found)"),
        ("FROM no-such-image-of-the-course\n", r"(?i)no-such-image-of-the-course"),
        ("FROM Upper/Case\n", r"(?i)must be lowercase"),
    ],
    ids=["syntax", "failing-run", "missing-source", "no-base", "bad-name"],
)
def test_a_build_that_fails_says_why_and_leaves_nothing(lines, said, engine, tmp_path):
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text(lines)
    log = build(tmp_path / "context", check=False)
    assert re.search(said, log, re.DOTALL), log
    assert ledger.down() == []
    left = "docker ps -aq --filter label=$LAB_LABEL; docker images -aq --filter label=$LAB_LABEL"
    assert sh(left).stdout == ""


def test_a_full_disk_is_said_by_the_build_and_leaves_nothing(home, monkeypatch, tmp_path):
    if not machine.qemu():
        pytest.skip("needs the Engine in a VM, whose disk can be filled")
    monkeypatch.setenv("LAB_ENGINE", "vm")
    containers.engine()
    containers.image("debian:stable-slim")
    (guest,) = vm.running()
    guest.run("fallocate -l $(df -m / | awk 'END { print $4 - 5 }')M /filler", check=True)
    (tmp_path / "Dockerfile").write_text(
        "FROM debian:stable-slim\nRUN head -c 20M /dev/zero > /it\n"
    )
    log = build(tmp_path, check=False)
    assert "No space left on device" in log and "head -c 20M" in log
    guest.run("rm /filler", check=True)
    assert sh("docker ps -aq; docker images -aq --filter label=$LAB_LABEL").stdout == ""
    assert build(tmp_path)  # there is room again


PROGRAM = "from helpers import containers; containers.engine(); containers.image('python:3-slim')"


def test_two_learners_share_an_engine_and_do_not_meet(engine, tmp_path):
    theirs = {**os.environ, "LAB_HOME": str(tmp_path / "theirs")}
    mine = os.environ["LAB_LABEL"]
    subprocess.run([sys.executable, "-c", PROGRAM], env=theirs, check=True)
    box = sh(f"docker run -d --label {mine} python:3-slim sleep 300").stdout.strip()
    down = [sys.executable, "-m", "helpers", "down"]
    subprocess.run(down, env=theirs, check=True, capture_output=True)
    assert sh(f"docker inspect -f '{{{{.State.Running}}}}' {box}").stdout == "true\n"
    subprocess.run([sys.executable, "-c", PROGRAM], env=theirs, check=True)
    assert ledger.down() == []
    assert sh("docker run --rm python:3-slim echo still there").stdout == "still there\n"
    subprocess.run(down, env=theirs, check=True, capture_output=True)
    prefix = re.compile("lab-[0-9a-f]+/python")
    names = sh("docker images --format '{{.Repository}}'").stdout.split()
    assert any(map(prefix.match, names)) or "python" not in names
