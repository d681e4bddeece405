"""Every test has a home of its own, and must leave nothing behind in it."""

import os

import pytest

from helpers import ledger


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items):
    """Let one process run all tests of a module, which share what it starts (pytest-xdist).

    The solutions of a notebook share nothing with those of another.
    """
    for item in items:
        if item.path.stem != "test_solutions":
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


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
