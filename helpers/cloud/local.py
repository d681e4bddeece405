"""Start the local cloud, or find the one that runs."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import socket
import sys
from dataclasses import dataclass

from helpers import ledger, machine
from helpers.cloud import environment

NAME = "local cloud"
ROOM_MB = 1000  # what an EKS cluster takes, with its nodes and their pods


class CloudError(RuntimeError):
    """No cloud can be used; the message says why and what to do."""


@dataclass(frozen=True)
class Cloud:
    """An AWS to work with.

    Attributes:
        rung: ``local cloud``, or ``real account`` (which costs money).
        endpoint: the URL at which the local cloud answers; empty for a real account.
        account: the account's number.
        region: the region that is used if a command names none.
        environment: the variables that lead AWS clients there.
    """

    rung: str
    endpoint: str
    account: str
    region: str
    environment: dict[str, str]


def start(*plan: str) -> Cloud:
    """Make sure that there is an AWS to work with, point this process at it and return it.

    That is the local cloud of this LAB_HOME, which is started if it does not run and shared by
    all notebooks and terminals. What is made in it lasts as long as its process. ``LAB_AWS=real``
    with ``LAB_AWS_PROFILE`` and ``LAB_AWS_ACCOUNT`` asks for a real account instead.

    Args:
        plan: what is going to be made, in the words of ``data/prices.csv`` (``t3.micro``): for a
            real account its cost an hour is printed. Where an EKS cluster is among it, and memory
            is scarce, the cluster of ``cluster.start`` is stopped if it has no pods.

    Raises:
        CloudError: the local cloud does not start or answer, or the real account is not the one
            that was typed.
    """
    if os.environ.get("LAB_AWS") == "real":
        from helpers.cloud import real

        return real.account(*plan)
    with open(ledger.home() / "cloud.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two notebooks may start it at once
        found = running() or _launch()
        ledger.use(*_entries())
    use(found)
    _make_room(plan)
    return found


def _make_room(plan: tuple[str, ...]) -> None:
    """Stop what other pages have left running, where memory is too little for it and the plan."""
    from helpers import cluster, containers

    containers.release(ROOM_MB)
    idle = cluster.running() if "EKS cluster" in plan else None
    free = machine.facts()["memory_free_mb"]
    if free > ROOM_MB or not idle or not idle.ours or idle.api.get("/api/v1/pods")["items"]:
        return
    print(f"Cluster {idle.name}, which has no pods, is stopped: {free} MB of memory were free.")
    if idle.rung != "process":
        containers.engine()
    idle.delete()


def use(found: Cloud) -> None:
    """Point this process, and what it starts from now on, at a cloud that runs."""
    environment.use(found.environment)


def running() -> Cloud | None:
    """Return the local cloud if it runs. Nothing is started or set.

    Raises:
        CloudError: it runs, but does not answer.
    """
    for entry in _entries():
        if _answers(entry):
            return _describe(entry)
    return None


def contents() -> dict[str, list[dict]]:
    """Return what exists in the local cloud (``helpers.cloud.now``); nothing if none answers."""
    for entry in _entries():
        link = http.client.HTTPConnection("127.0.0.1", entry.facts["port"], timeout=5)
        try:
            secret = {environment.HEADER: (environment.folder() / "secret").read_text()}
            link.request("GET", environment.NOW, headers=secret)
            answer = link.getresponse()
            if answer.status == 200:
                return json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            continue
        finally:
            link.close()
    return {}


def _entries() -> list[ledger.Entry]:
    return [entry for entry in ledger.entries("process") if entry.name == NAME]


def _describe(entry: ledger.Entry) -> Cloud:
    endpoint = entry.facts["endpoint"]
    settings = environment.local(endpoint)
    return Cloud(NAME, endpoint, environment.ACCOUNT, environment.REGION, settings)


def _answers(entry: ledger.Entry, seconds: float = 10) -> bool:
    """Say whether this very cloud answers at its address, and not somebody else."""
    link = http.client.HTTPConnection("127.0.0.1", entry.facts["port"], timeout=seconds)
    try:
        link.request("GET", "/_lab")
        return link.getresponse().read().decode(errors="replace") == entry.id
    except TimeoutError:
        raise CloudError(
            f"The local cloud (process {entry.pid}) does not answer within {seconds:.0f} s. "
            "Ask again, or stop it and all else: python -m helpers down"
        ) from None
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()


def _launch() -> Cloud:
    """Start a new one; what former ones have left behind is removed first."""
    dead, folder = _entries(), environment.folder()
    _clear({one.id for one in dead})
    with _listen(dead[-1].facts["port"] if dead else 0) as listening:
        port = listening.getsockname()[1]
        endpoint = f"http://127.0.0.1:{port}"
        settings = environment.without_aws(os.environ) | environment.local(endpoint)
        settings |= {"MOTO_PORT": str(port), "MOTO_DISABLE_GLOBAL_CORS": "true"}
        settings |= {"LAB_HOME": str(ledger.home())}  # which may be relative to where we are
        settings |= {"MALLOC_ARENA_MAX": "2"}  # with one heap a thread it would grow and grow
        _, entry = ledger.spawn(
            NAME,
            [sys.executable, "-m", "helpers.cloud.server", str(listening.fileno())],
            env=settings,
            log=folder / "server.log",
            facts={"endpoint": endpoint, "port": port},
            pass_fds=[listening.fileno()],
            cwd=folder,
        )
    if not _answers(entry, 30):  # the socket listens already, so this waits for it
        ledger.stop(entry)
        last = (folder / "server.log").read_text(errors="replace").strip().splitlines()[-1:]
        raise CloudError(f"The local cloud did not start. It says: {' '.join(last) or 'nothing'}")
    if dead:
        print("The local cloud had died, and what was in it is lost. A new one runs, empty.")
    else:
        print("The local cloud runs, empty. What you make in it lasts until it is stopped.")
    return _describe(entry)


def _clear(dead: set[str]) -> None:
    """Stop what dead clouds have left behind, and remove the folders that clouds worked in.

    The Engine stays in the ledger: the learner may have containers of their own in it.
    """
    from helpers import cluster, containers

    entries = [one for one in reversed(ledger.entries()) if {one.id, one.parent} & dead]
    for name in {one.facts["cluster"] for one in entries if "cluster" in one.facts}:
        if found := cluster.find(name):
            with contextlib.suppress(containers.EngineError):
                if found.rung != "process":
                    containers.engine()
            found.delete()
    for entry in entries:
        if entry.kind != "engine":
            ledger.stop(entry)
    for one in environment.folder().iterdir():
        if one.is_dir():
            shutil.rmtree(one, ignore_errors=True)


def _listen(port: int) -> socket.socket:
    """Return a listening socket, on the port that clients know already if that is still free."""
    try:
        return socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError:
        return socket.create_server(("127.0.0.1", 0), backlog=128)
