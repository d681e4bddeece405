"""Which permissions a piece of work takes: the smallest policy that would have allowed it."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator

from helpers import ledger
from helpers.cloud import environment


def note(key: str, needs: list[tuple[str, str]]) -> None:
    """Note what an allowed call has needed: actions and the ARNs of their resources."""
    lines = "".join(json.dumps([key, action, resource]) + "\n" for action, resource in needs)
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    with contextlib.suppress(FileNotFoundError):  # the folder goes before the cloud does
        log = os.open(ledger.home() / "cloud/permissions.log", flags, 0o600)
        os.write(log, lines.encode())
        os.close(log)


@contextlib.contextmanager
def recorded() -> Iterator[dict]:
    """Record the calls made to the local cloud inside a ``with`` block, by whomever.

    What has an id that is given when it is made (an instance, a stack) is meant with all of its
    kind, since it has another id next time.

    Yields:
        A policy document. After the block it allows what was done, and nothing else; calls that
        were refused are not in it.
    """
    log = environment.folder() / "permissions.log"
    log.touch(0o600)
    begin = log.stat().st_size
    policy: dict = {"Version": "2012-10-17", "Statement": []}
    yield policy
    resources = defaultdict(set)
    with open(log) as lines:
        lines.seek(begin)
        for line in lines:
            _, action, resource = json.loads(line)
            if action != "sts:GetCallerIdentity":
                resources[_lasting(resource)].add(action)
    statements = defaultdict(list)
    for resource, actions in sorted(resources.items()):
        statements[tuple(sorted(actions))].append(resource)
    policy["Statement"] += [
        {"Effect": "Allow", "Action": list(actions), "Resource": found}
        for actions, found in statements.items()
    ]


def _lasting(arn: str) -> str:
    """Return an ARN without an id that is made up anew each time; a log group as policies do."""
    arn = arn.removesuffix("log-stream:") + "*" if arn.endswith(":log-stream:") else arn
    arn = re.sub(r"^(arn:aws:ec2:[\w-]*:\d+:[\w-]+)/[a-z]+-[0-9a-f]{8,}$", r"\1/*", arn)
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "*", arn)
