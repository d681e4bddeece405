"""The environment that leads every AWS client to the local cloud, or to the account opted in to."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from helpers import guard, ledger

ACCOUNT = "123456789012"
REGION = "us-east-1"
ROOT_KEY = "AKIALOCALCLOUDROOT00"
NOW, HEADER = "/_lab/now", "X-Lab-Secret"  # where the local cloud tells what exists, and to whom


def folder() -> Path:
    """Return the folder of the local cloud: its logs, and what stands in for ``~/.aws``.

    It is in the ledger, and goes with ``down``.
    """
    path = ledger.home() / "cloud"
    if not path.exists():
        with ledger.for_all():
            ledger.record("files", "files of the local cloud", path=str(path))
        path.mkdir()
    if not (path / "secret").exists():
        (path / "secret").write_text(secrets.token_urlsafe(30))
        (path / "config").touch()
        (path / "credentials").touch()
    return path


def local(endpoint: str) -> dict[str, str]:
    """Return the variables that lead AWS clients to the local cloud, as its root user.

    The secret is made up for this LAB_HOME, so that other users of the machine cannot sign.
    """
    here = folder()
    return {
        "LAB_AWS": "local",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ROOT_KEY,
        "AWS_SECRET_ACCESS_KEY": (here / "secret").read_text(),
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": str(here / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(here / "credentials"),
        "AWS_DATA_PATH": str(here / "waiters"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "2",  # a cloud that is stopped does not come back by asking
        "AWS_PAGER": "",
    }


def without_aws(variables) -> dict[str, str]:
    """Return an environment without whatever could lead an AWS client elsewhere."""
    theirs = ("AWS_", "BOTO_", "MOTO_", "LAB_AWS")
    return {name: value for name, value in variables.items() if not name.startswith(theirs)}


def use(environment: dict[str, str]) -> None:
    """Set this process's environment, so that what it starts and boto3 here go there."""
    kept = without_aws(os.environ)
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]
    os.environ.update(environment)
    for name in ("NO_PROXY", "no_proxy"):
        there = [part for part in os.environ.get(name, "").split(",") if part]
        missing = [part for part in ("127.0.0.1", "localhost") if part not in there]
        os.environ[name] = ",".join(there + missing)
    guard.here()
    guard.everywhere()
    if "boto3" in sys.modules:  # its default session remembers what it has read before
        sys.modules["boto3"].DEFAULT_SESSION = None
