"""The worker of one pod: brings it to what its specification says and reports what it is."""

from __future__ import annotations

import threading
import time
import traceback

import urllib3

from helpers.cluster.agent import status
from helpers.cluster.agent.container import Container, seconds
from helpers.cluster.agent.environment import MissingError, References
from helpers.cluster.agent.events import now
from helpers.cluster.agent.volumes import Volumes
from helpers.cluster.api import ApiError

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
REFRESH = 20  # seconds after which volumes are read again
POLL = 10  # seconds between two looks at a container that says nothing


class Pod(threading.Thread):
    """A pod of this node, in a thread of its own."""

    def __init__(self, node, pod: dict) -> None:
        """Prepare for a pod as the API gives it."""
        meta = pod["metadata"]
        super().__init__(name=f"{meta['namespace']}/{meta['name']}", daemon=True)
        self.node, self.pod, self.uid = node, {"kind": "Pod", **pod}, meta["uid"]
        self.path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        self.wake = threading.Event()
        self.gone = self.over = False
        self.address = ""
        self.init: list[Container] = []
        self.containers: list[Container] = []
        self.failure: dict = {}
        self.reported: dict = {}
        self._refreshed = 0.0
        known = pod.get("status", {})
        self.finished = known.get("phase") in ("Succeeded", "Failed")
        self.begun = known.get("startTime") or now()
        self.conditions = {one["type"]: one for one in known.get("conditions", [])}

    @property
    def grace(self) -> float:
        """Seconds that its containers get between the signal and the kill."""
        if self.gone:
            return 1
        given = self.pod["metadata"].get("deletionGracePeriodSeconds")
        if given is None:
            given = self.pod["spec"].get("terminationGracePeriodSeconds", 30)
        return given

    @property
    def leaving(self) -> bool:
        """Say whether it is being deleted."""
        return self.gone or "deletionTimestamp" in self.pod["metadata"]

    def update(self, pod: dict, *, gone: bool = False) -> None:
        """Take note of a newer version of it, or that the API has it no more."""
        self.pod, self.gone = {"kind": "Pod", **pod}, self.gone or gone
        self.wake.set()

    def run(self) -> None:
        """Work until the pod is gone."""
        while not self.over:
            self.wake.clear()
            try:
                pause = self._step()
                if not self.over:
                    self._report()
            except (ApiError, urllib3.exceptions.HTTPError) as problem:
                self.gone = self.gone or getattr(problem, "status", 0) == 404
                pause = 1
            except OSError as problem:  # the Engine, say, is away
                print(f"{self.name}: {problem}", flush=True)
                pause = 1
            except Exception:  # whatever it is, the pod is tried again
                traceback.print_exc()
                pause = 1
            if not self.over:
                self.wake.wait(pause)

    def all(self) -> list[Container]:
        """Return all its containers, those that come first first."""
        return self.init + self.containers

    def _step(self) -> float:
        """Do what has to be done and return after how many seconds to look again."""
        if self.leaving:
            self._end()
            return 0
        if self.finished:
            return 3600
        if not self.address:
            try:
                self._open()
            except MissingError as problem:
                self.node.events(self.pod, "FailedMount", str(problem), kind="Warning")
                return 5
        limit = self.pod["spec"].get("activeDeadlineSeconds")
        deadline = seconds(self.begun) + limit if limit else float("inf")
        if time.time() >= deadline:
            text = "Pod was active on the node longer than the specified deadline"
            self.fail("DeadlineExceeded", text)
            self._stop_all()
            return 3600
        if time.time() - self._refreshed > REFRESH:
            self._refresh()
        self._sync()
        times = [one.retry for one in self.all() if one.wanted and one.retry > time.time()]
        return max(0.05, min([*times, deadline, time.time() + POLL]) - time.time())

    def _open(self) -> None:
        node, spec = self.node, self.pod["spec"]
        self.look = References(node.api, self.pod, "", node.settings.address, node.offered)
        self.init = [Container(self, one, init=True) for one in spec.get("initContainers", [])]
        self.containers = [Container(self, one, init=False) for one in spec["containers"]]
        self.volumes = Volumes(self.look, node.settings.rung)
        loaded = self.volumes.load()
        mounts = [mount for one in self.all() for mount in self.volumes.mounts(one.spec)]
        self.address = self.look.address = node.runtime.open(self.pod, mounts)
        for volume in loaded:
            self.volumes.wrote(volume)
        places = {mount.path: node.runtime.place(self.uid, mount.volume) for mount in mounts}
        places.pop(TOKEN, None)  # every pod has it
        told = [f"{path} is {place}" for path, place in places.items() if place]
        if told:
            node.events(self.pod, "NoMount", ", ".join(told), kind="Warning")
        self._refreshed = time.time()

    def _refresh(self) -> None:
        self._refreshed = time.time()
        self.look.pod = self.pod
        try:
            for volume in self.volumes.load():
                self.node.runtime.write(self.uid, volume)
                self.volumes.wrote(volume)
        except MissingError as problem:
            self.node.events(self.pod, "FailedMount", str(problem), kind="Warning")

    def _sync(self) -> None:
        if not any(one.state for one in self.containers):
            for one in self.init:
                if not one.succeeded:
                    one.sync()
                if not one.succeeded:
                    if one.state and not one.running and not one.wanted:
                        self.finished = True
                    return
        for one in self.containers:
            one.sync()
            if self.leaving:
                return
        if not any(one.running or one.wanted for one in self.containers):
            self.finished = True

    def fail(self, reason: str, message: str) -> None:
        """Let the pod have failed for a reason of its own."""
        self.failure, self.finished = {"reason": reason, "message": message}, True

    def _stop_all(self) -> None:
        """Stop all containers at once; a shorter grace period that comes meanwhile counts."""
        running = [one for one in self.all() if one.running]
        grace = self.grace
        for one in running:
            one.tell("Killing", f"Stopping container {one.name}")
        threads = [threading.Thread(target=one.stop, args=(grace,)) for one in running]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(0.05) if len(threads) == 1 else time.sleep(0.05)
            if self.grace < grace:
                grace = self.grace
                for one in running:
                    self.node.runtime.stop(one.id, grace)

    def _end(self) -> None:
        """Stop it, tell the API that it has ended, and remove what is left of it."""
        runtime = self.node.runtime
        if not self.all() and not self.finished:  # it was never begun, or by another agent
            self.volumes = self.look = None
            for attempts in runtime.containers(self.uid).values():
                for _, container in attempts:
                    runtime.stop(container, self.grace)
        self._stop_all()
        if not self.gone:
            self._report()
            gone = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
            try:
                self.node.api.delete(self.path, gone)
            except ApiError as problem:
                if problem.status not in (404, 409):
                    raise
        runtime.close(self.uid)
        self.over = True
        self.node.forget(self.uid)

    def _report(self) -> None:
        """Send the status to the API if it has changed."""
        if not self.containers and not self.failure:
            return
        found = status.of_pod(self)
        if found != self.reported:
            self.node.api.patch(f"{self.path}/status", {"status": found}, "strategic-merge")
            self.reported = found
