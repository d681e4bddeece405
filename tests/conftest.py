"""Every test has a home of its own, and must leave nothing behind in it."""

import os

import boto3
import pytest

from helpers import ledger


def pytest_configure(config):
    """Where processes share the work, each runs its notebooks in a home of its own."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        os.environ["LAB_HOME"] = str(ledger.home() / worker)


def pytest_collection_modifyitems(items):
    """A process takes a whole file; ``--dist loadgroup`` splits those that say their groups."""
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.fixture(autouse=True)
def forgotten_keys():
    """boto3 remembers the keys that it has found; the next test may have others."""
    yield
    boto3.DEFAULT_SESSION = None


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A fresh LAB_HOME; what the test started is stopped, and that is proved."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "lab"))
    before = dict(os.environ)
    yield ledger.home()
    assert ledger.down() == []
    os.environ.clear()  # an Engine puts its address there
    os.environ.update(before)


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    """A LAB_HOME that the tests of one module share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_HOME", str(tmp_path_factory.mktemp("shared") / "lab"))
        before = dict(os.environ)
        yield ledger.home()
        assert ledger.down() == []
        os.environ.clear()
        os.environ.update(before)
