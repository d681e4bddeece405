"""What the tests of the local cloud ask: calls that are refused, and commands of a shell."""

import os
import subprocess

import pytest
from botocore.exceptions import ClientError


def refused(code, call, **arguments):
    """Check that a call is refused with a code, and return the message."""
    with pytest.raises(ClientError) as problem:
        call(**arguments)
    assert problem.value.response["Error"]["Code"] == code, problem.value
    return problem.value.response["Error"]["Message"]


def sh(command, **more):
    """Run a command with more variables; return exit status and what it says."""
    run = {"capture_output": True, "text": True, "env": os.environ | more}
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], **run)
    return done.returncode, done.stdout + done.stderr


def good(command, **more):
    """Run a command that must not fail, and return what it says."""
    status, said = sh(command, **more)
    assert status == 0, said
    return said.strip()
