"""The rooms of helpers call each other only downwards, and importing them is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = Path(__file__).resolve().parents[1] / "helpers"

# Which room may import which; each stands above all that it may import.
BELOW = {
    "cloud": {"cluster", "containers", "vm", "machine", "ledger", "guard"},
    "cluster": {"containers", "vm", "machine", "ledger"},
    "bench": {"containers", "vm", "machine", "ledger"},
    "teaching": {"rehearse", "checkpoint", "view", "machine"},
    "rehearse": {"lesson", "publish", "view", "machine", "ledger"},
    "checkpoint": {"lesson", "view", "cloud", "cluster", "containers", "ledger"},
    "view": {"cloud", "cluster", "containers", "machine", "ledger"},
    "lesson": {"machine", "ledger"},
    "containers": {"vm", "machine", "ledger"},
    "vm": {"machine", "ledger"},
    "machine": {"ledger"},
    "ledger": set(),
    "guard": set(),
    "install": set(),
    "publish": set(),
    "book": set(),
    "jupyter": {"guard"},
}
HEAVY = ["pandas", "matplotlib", "docker", "boto3", "kubernetes", "moto", "hypothesis", "pytest"]
FILES = [file for file in sorted(HELPERS.rglob("*.py")) if file.name not in ("__main__.py",)]


def room(file):
    """The room that a file belongs to; helpers/__init__.py belongs to none."""
    parts = file.relative_to(HELPERS).with_suffix("").parts
    return None if parts == ("__init__",) else parts[0]


def imported(file):
    """The rooms that a file imports, by whichever spelling."""
    package = ["helpers", *file.relative_to(HELPERS).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            names = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("helpers."))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HELPERS)))
def test_imports_point_downwards(file):
    own = room(file)
    assert own is None or own in BELOW, f"{own} is a new room: say what it may import"
    upwards = set(imported(file)) - {own} - BELOW.get(own, set())
    assert not upwards, f"{own} may not import {sorted(upwards)}"


def loaded_by(statement):
    """The top-level modules that a fresh Python has loaded after a statement."""
    show = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_helpers_loads_nothing_heavy():
    assert not loaded_by("import helpers") & {*HEAVY, "IPython", "psutil", "cryptography"}


@pytest.mark.parametrize(
    "name", sorted({room(file) for file in FILES} & BELOW.keys() - {"publish", "rehearse"})
)
def test_rooms_load_heavy_libraries_only_when_used(name):
    if name == "jupyter":
        pytest.skip("read by JupyterLab, not imported")
    assert not loaded_by(f"import helpers.{name}") & set(HEAVY)
