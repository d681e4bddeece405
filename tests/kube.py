"""A cluster for all tests of a module, and kubectl as a user calls it."""

import json
import subprocess

import pytest

from helpers import cluster


def kubectl(*words, given=None, check=True):
    """Run kubectl and return what it prints; with ``check=False`` the whole result."""
    text = given if given is None or isinstance(given, str) else json.dumps(given)
    done = subprocess.run(["kubectl", *words], input=text, capture_output=True, text=True)
    if not check:
        return done
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(*words):
    """An object, or a list of objects, as kubectl gets it."""
    return json.loads(kubectl("get", *words, "-o", "json"))


@pytest.fixture(scope="module", params=["docker", "process"])
def lab(request, shared_home):
    """A cluster with one node on each of the rungs that need no virtual machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_PODS", request.param)
        patch.setenv("LAB_CLUSTER", "ours")
        found = cluster.start()
        yield found
        found.delete()
