"""Pods as plain processes, where memory allows no Engine: no isolation, no limits."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import psutil

from helpers import machine
from helpers.cluster.agent import process_logs
from helpers.cluster.agent.addresses import Addresses
from helpers.cluster.agent.events import now
from helpers.cluster.agent.process_streams import Attached, Command
from helpers.cluster.agent.runtime import (
    ImageError,
    Mount,
    Settings,
    StartError,
    State,
    Volume,
)

MARK = "LAB_POD_UID"
SHIM = Path(__file__).parent / "loopback.c"


class ProcessPods:
    """Runs pods as processes, each pod on a loopback address of its own.

    What an image is stands in the cluster's ``images.json``: its command, folder and variables.
    A container's id is ``UID/NAME/ATTEMPT``.
    """

    kind, version = "process", "1"
    remark = "pods are plain processes, which share this machine's files and have no limits"

    def __init__(self, folder: Path, cluster: str, settings: Settings) -> None:
        """Begin with nothing running: what an agent before this one has left is ended."""
        self._images = folder / "images.json"
        self._folder = folder / "nodes" / settings.name / "pods"
        self._kept = folder / "volumes"
        self._addresses = Addresses(settings)
        self._running: dict[str, subprocess.Popen] = {}
        self._begun: dict[str, str] = {}
        self._env: dict[str, tuple[dict[str, str], str]] = {}
        self._ended: queue.Queue[str] = queue.Queue()
        self._folder.mkdir(parents=True, exist_ok=True)
        for uid in self.pods():
            _end_marked(uid)
        if not _shim():
            self.remark += "; without a C compiler they share its ports too (listen at $HOST)"

    def pods(self) -> set[str]:
        """Return the uids of the pods that have a folder."""
        return {path.name for path in self._folder.iterdir()}

    def open(self, pod: dict, mounts: list[Mount]) -> str:
        """See to a pod's address and volumes, and return the address."""
        uid = pod["metadata"]["uid"]
        (self._folder / uid).mkdir(exist_ok=True)
        for mount in mounts:
            self.write(uid, mount.volume)
        return self._addresses.take(pod)

    def close(self, uid: str) -> None:
        """End what is left of a pod and remove its files."""
        _end_marked(uid)
        shutil.rmtree(self._folder / uid, ignore_errors=True)
        self._addresses.free(uid)

    def write(self, uid: str, volume: Volume) -> None:
        """Write a volume's files anew."""
        folder = Path(self.place(uid, volume))
        if not volume.store.startswith("/"):
            folder.mkdir(parents=True, exist_ok=True)
        for name, (content, mode) in (volume.files or {}).items():
            path, draft = folder / name, folder / f"{name}.draft"
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(content)
            draft.chmod(mode)
            draft.replace(path)

    def place(self, uid: str, volume: Volume) -> str:
        """Return the folder that is a volume."""
        if volume.store.startswith("/"):
            return volume.store
        above = self._kept if volume.kept else self._folder / uid / "volumes"
        return str(above / volume.store)

    def ensure_image(
        self, image: str, policy: str, pulling: Callable[[], None], login: Callable[[], dict]
    ) -> str:
        """Look an image up and return its name: nothing can be pulled."""
        self._image(image)
        return image

    def start(
        self, pod: dict, container: dict, env: dict[str, str], mounts: list[Mount], attempt: int
    ) -> str:
        """Start a process and return its id."""
        meta, image = pod["metadata"], self._image(container["image"])
        uid = meta["uid"]
        here = self._folder / uid
        id_ = f"{uid}/{container['name']}/{attempt}"
        argv = (container.get("command") or image["command"]) + container.get("args", [])
        if container.get("command") is None and container.get("args"):
            argv = image["command"][:1] + container["args"]
        folder = container.get("workingDir") or image.get("cwd") or str(here)
        whole = self._environment(pod, here) | image.get("env", {}) | env
        if ports := container.get("ports"):
            whole.setdefault("PORT", str(ports[0]["containerPort"]))
        log = here / container["name"] / f"{attempt}.log"
        log.parent.mkdir(exist_ok=True)
        log.touch()
        try:
            process = subprocess.Popen(
                argv,
                cwd=folder,
                env=whole,
                stdin=subprocess.PIPE if container.get("stdin") else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as problem:
            state = State(False, 127, False, now(), now(), str(problem))
            self._save(id_, state)
            text = f'failed to start container "{container["name"]}": {problem}'
            raise StartError("RunContainerError", text) from None
        self._begun[id_], self._running[id_] = now(), process
        self._env[id_] = whole, folder
        threading.Thread(target=process_logs.keep, args=(process, log), daemon=True).start()
        threading.Thread(target=self._await_end, args=(id_, process), daemon=True).start()
        return id_

    def state(self, container: str) -> State:
        """Return what a process does."""
        running = container in self._running  # asked first: the end is written before it
        told = self._path(container, ".json")
        if told.exists():
            return State(**json.loads(told.read_text()))
        if running:
            return State(True, started=self._begun[container])
        return State(False, 137, False, "", now())  # ended with the agent that had started it

    def containers(self, uid: str) -> dict[str, list[tuple[int, str]]]:
        """Return a pod's processes by name, the newest last."""
        found: dict[str, list[tuple[int, str]]] = {}
        for log in (self._folder / uid).glob("*/*.log"):
            attempt = int(log.stem)
            found.setdefault(log.parent.name, []).append(
                (attempt, f"{uid}/{log.parent.name}/{attempt}")
            )
        return {name: sorted(attempts) for name, attempts in found.items()}

    def read(self, container: str, path: str) -> bytes:
        """Return nothing: a process has no files of its own."""
        return b""

    def stop(self, container: str, grace: float) -> None:
        """Send TERM, wait so many seconds, then KILL."""
        if not (process := self._running.get(container)):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)
                break
            grace = 5
        while not self._path(container, ".json").exists() and container in self._running:
            time.sleep(0.01)

    def remove(self, container: str) -> None:
        """Remove what is kept of a process that has ended."""
        for suffix in (".log", ".json"):
            self._path(container, suffix).unlink(missing_ok=True)

    def logs(self, container: str, **wanted) -> Iterator[bytes]:
        """Yield what a process has written (see ``runtime.Runtime.logs``)."""
        log = self._path(container, ".log")
        return process_logs.read(log, lambda: container in self._running, **wanted)

    def exec(self, container: str, argv: list[str], *, stdin: bool, tty: bool) -> Command:
        """Run a command beside a process, with its variables and in its folder."""
        env, folder = self._env[container]
        return Command(argv, stdin=stdin, tty=tty, env=env, cwd=folder)

    def attach(self, container: str, *, stdin: bool, tty: bool) -> Attached:
        """Join the streams of a process."""
        return Attached(self._running[container], self.logs(container, follow=True, tail=0))

    def changes(self) -> Iterator[str]:
        """Yield the uid of a pod whenever one of its processes has ended, for ever."""
        while True:
            yield self._ended.get()

    def _image(self, name: str) -> dict:
        known = json.loads(self._images.read_text()) if self._images.exists() else {}
        full = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
        if full not in known:
            text = f"{name} cannot be pulled on the process rung. There are: "
            raise ImageError("ErrImagePull", text + (", ".join(sorted(known)) or "none"))
        return known[full]

    def _environment(self, pod: dict, here: Path) -> dict[str, str]:
        meta, address = pod["metadata"], self._addresses.take(pod)
        own = "127" + address[address.index(".") :]
        found = {name: os.environ[name] for name in ("LANG", "LAB_LEDGER_ID") if name in os.environ}
        # What the course has installed is there as in an image, whoever has started the node.
        found["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        found |= {"HOME": str(here), "HOSTNAME": meta["name"], MARK: meta["uid"]}
        found |= {"POD_IP": own, "HOST": own, "PYTHONUNBUFFERED": "1"}
        if shim := _shim():
            found |= {"LD_PRELOAD": str(shim), "LAB_ADDRESS": own}
        return found

    def _path(self, container: str, suffix: str) -> Path:
        return self._folder / f"{container}{suffix}"

    def _save(self, container: str, state: State) -> None:
        draft = self._path(container, ".draft")
        draft.write_text(json.dumps(asdict(state)))
        draft.replace(self._path(container, ".json"))

    def _await_end(self, container: str, process: subprocess.Popen) -> None:
        code = process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has left in its group
        code = code if code >= 0 else 128 - code
        state = State(False, code, False, self._begun[container], now())
        with contextlib.suppress(FileNotFoundError):  # the pod is gone already
            self._save(container, state)
        self._running.pop(container, None)
        self._ended.put(container.split("/")[0])


def _end_marked(uid: str) -> None:
    """End whatever carries the mark of a pod, also what has left its session."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == uid:
                process.kill()


def _shim() -> Path | None:
    """Return the library that gives a pod its own loopback; None where there is no compiler."""
    if not (compiler := shutil.which("gcc") or shutil.which("cc")):
        return None

    def make(draft: Path) -> None:
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", draft, SHIM, "-ldl"]
        subprocess.run(command, check=True, capture_output=True)

    return machine.cached("bin/loopback.so", make, what="Compiling a pod's loopback", seconds=1)
