"""Every test has a home of its own, and must leave nothing behind in it."""

import os

import boto3
import pytest

from helpers import ledger


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
