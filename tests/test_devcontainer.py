"""What a dev container (Codespaces, VS Code) is told. It cannot be built without a network."""

import json
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())


def test_each_feature_stays_at_a_major_version():
    assert {"docker-in-docker", "kind"} <= {
        name.rpartition("/")[2].partition(":")[0] for name in FILE["features"]
    }
    assert all(re.fullmatch(r"[\w./-]+:\d+", name) for name in FILE["features"])
    assert re.search(r":3\.1[123](-\w+)?$", FILE["image"])


def test_the_commands_and_files_that_it_names_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in FILE["postCreateCommand"].split(" && "):
        program, *words = command.split()
        if program == "make":
            assert shutil.which("make") and set(words) <= set(targets)
        else:
            assert words == ["-m", "helpers", "prepare"] and program == ".venv/bin/python"
    for name in FILE["customizations"]["codespaces"]["openFiles"]:
        assert (ROOT / name).exists()


def test_ports_are_forwarded_and_never_published():
    assert not FILE.keys() & {"appPort", "runArgs"}
