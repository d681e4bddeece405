"""Every test has a home of its own, and must leave nothing behind in it."""

import os

import boto3
import pytest
from xdist.scheduler import LoadFileScheduling

from helpers import ledger


def pytest_configure(config):
    """Where processes share the work, each runs its notebooks in a home of its own."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        os.environ["LAB_HOME"] = str(ledger.home() / worker)


class ByFile(LoadFileScheduling):
    """A process takes a whole file, as what it starts is for all of it; of the solutions, one."""

    def _split_scope(self, nodeid):
        return nodeid if "test_solutions.py" in nodeid else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config, log):
    """Give out work by what stands above."""
    return ByFile(config, log)


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
