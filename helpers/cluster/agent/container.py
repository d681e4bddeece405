"""One container of a pod: started, probed, restarted with back-off, stopped, reported."""

from __future__ import annotations

import calendar
import time
from functools import partial

from helpers.cluster.agent import logins
from helpers.cluster.agent.environment import MissingError, expand
from helpers.cluster.agent.probes import Handler, Probe
from helpers.cluster.agent.runtime import ImageError, StartError, State

BACK_OFF, LONGEST = 10, 300  # seconds
FORGIVEN = 600  # seconds after which a container that ran is no longer one that crashes


def seconds(text: str) -> float:
    """Return a time of the API in seconds since the epoch."""
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


class Container:
    """A container of a pod, whichever of its attempts is the present one."""

    def __init__(self, worker, spec: dict, *, init: bool) -> None:
        """Find out what there is of it already (``worker`` is the pod's)."""
        self.worker, self.spec, self.name, self.init = worker, spec, spec["name"], init
        self.runtime = worker.node.runtime
        self.id, self.attempt, self.image_id = "", -1, ""
        self.state: State | None = None
        self.last: tuple[str, State] | None = None
        self.waiting: tuple[str, str] | None = None
        self.retry = self.delay = self.image_delay = 0.0
        self.probes: dict[str, Probe] = {}
        self.said: dict[str, str] = {}
        self.handle: Handler | None = None
        self._adopt()

    @property
    def running(self) -> bool:
        """Say whether it runs."""
        return bool(self.state and self.state.running)

    @property
    def wanted(self) -> bool:
        """Say whether it has to be started, now or later."""
        if self.running:
            return False
        policy = self.worker.pod["spec"].get("restartPolicy", "Always")
        if not self.state or (policy == "Always" and not self.init):
            return True
        return policy != "Never" and self.state.exit_code != 0

    @property
    def succeeded(self) -> bool:
        """Say whether it has ended well."""
        return bool(self.state and not self.state.running and self.state.exit_code == 0)

    @property
    def started(self) -> bool:
        """Say whether its startup probe, if it has one, has succeeded."""
        probe = self.probes.get("startup")
        return self.running and (probe.ok if probe else "startupProbe" not in self.spec)

    @property
    def ready(self) -> bool:
        """Say whether it runs and its readiness probe, if it has one, succeeds."""
        if self.init:
            return self.succeeded
        probe = self.probes.get("readiness")
        return self.started and (probe.ok if probe else "readinessProbe" not in self.spec)

    def sync(self) -> None:
        """Do what has to be done now: notice its end, start it, restart it."""
        if self.running:
            self._watch()
        if self.wanted and time.time() >= self.retry:
            self._start()
        elif self.waiting and self.waiting[0] == "ErrImagePull":
            text = f'Back-off pulling image "{self.spec["image"]}"'
            self.waiting = ("ImagePullBackOff", text)
            self.tell("BackOff", text)
            self.tell("Failed", "Error: ImagePullBackOff", "Warning")

    def stop(self, grace: float) -> None:
        """End it as its pod says: first the hook, then the signal, after so many seconds KILL."""
        self._quiet()
        begin = time.monotonic()
        if (hook := self.spec.get("lifecycle", {}).get("preStop")) and grace > 0:
            good, said = self.handle(hook, self.id, grace)
            if not good:
                self.tell("FailedPreStopHook", f"PreStop hook failed: {said}", "Warning")
            grace = max(2, grace - (time.monotonic() - begin))
        self.runtime.stop(self.id, grace)
        self.state = self.runtime.state(self.id)

    def tell(self, reason: str, message: str, kind: str = "Normal") -> None:
        """Post an event about it."""
        field = f"spec.{'initContainers' if self.init else 'containers'}{{{self.name}}}"
        self.worker.node.events(self.worker.pod, reason, message, kind=kind, container=field)

    def _adopt(self) -> None:
        """Take over what an agent before this one has started."""
        attempts = self.runtime.containers(self.worker.uid).get(self.name, [])
        for number, container in attempts[-2:]:
            if self.state:
                self.last = (self.id, self.state)
            self.attempt, self.id = number, container
            self.state = self.runtime.state(container)
        kind = "initContainerStatuses" if self.init else "containerStatuses"
        for old in self.worker.pod.get("status", {}).get(kind, []):
            if old["name"] == self.name:
                self.image_id = old.get("imageID", "").partition("://")[2]
        self.adopted = self.running

    def _watch(self) -> None:
        """See whether it still runs and lives, and what its end means."""
        self.state = self.runtime.state(self.id)
        if self.running:
            for kind in ("liveness", "startup"):
                if (probe := self.probes.get(kind)) and probe.failed:
                    text = f"Container {self.name} failed {kind} probe, will be restarted"
                    self.tell("Killing", text)
                    self.stop(self.worker.grace)
                    break
            else:
                self._guard()
                return
        self._note_end()

    def _note_end(self) -> None:
        self._quiet()
        path = self.spec.get("terminationMessagePath", "/dev/termination-log")
        said = self.runtime.read(self.id, path)
        fallback = self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not said and fallback and self.state.exit_code:
            said = b"".join(self.runtime.logs(self.id, tail=80))[-2048:]
        self.said = {self.id: said[:4096].decode(errors="replace")}
        begun = seconds(self.state.started) if self.state.started else time.time()
        if time.time() - begun > FORGIVEN:
            self.delay = 0.0
        self._back_off("")

    def _back_off(self, message: str) -> None:
        """Let it rest before it is started again, longer each time."""
        if not self.wanted:
            return
        self.retry = time.time() + self.delay
        if self.delay:
            pod = self.worker.pod["metadata"]
            text = f"back-off {self.delay:.0f}s restarting failed container={self.name} pod="
            text += f"{pod['name']}_{pod['namespace']}({pod['uid']})"
            self.waiting = ("CrashLoopBackOff", text)
            self.tell("BackOff", "Back-off restarting failed container", "Warning")
        elif message:
            self.waiting = ("RunContainerError", message)
        self.delay = min(LONGEST, self.delay * 2 or BACK_OFF)

    def _start(self) -> None:
        worker = self.worker
        if not self._pull():
            return
        try:
            env = worker.look.variables(self.spec)
        except MissingError as problem:
            self._wait("CreateContainerConfigError", str(problem), 5)
            return
        spec = dict(self.spec)
        for words in ("command", "args"):
            spec[words] = [expand(word, env) for word in self.spec.get(words, [])]
        if self.state:
            self.last = (self.id, self.state)
        self._forget_old()
        try:
            mounts = worker.volumes.mounts(self.spec)
            self.id = self.runtime.start(worker.pod, spec, env, mounts, self.attempt + 1)
        except StartError as problem:
            self.tell("Failed", f"Error: {problem}", "Warning")
            if problem.reason == "CreateContainerError":
                self._wait(problem.reason, str(problem), 10, told=True)
                return
            self._look_for_newest()
            self._back_off(str(problem))
            return
        self.attempt += 1
        self.waiting, self.state = None, self.runtime.state(self.id)
        self.adopted = False
        self.tell("Created", f"Created container {self.name}")
        self.tell("Started", f"Started container {self.name}")
        if not self.running:
            self._note_end()
            return
        self._guard()
        if hook := self.spec.get("lifecycle", {}).get("postStart"):
            good, said = self.handle(hook, self.id, LONGEST)
            if good is False:
                self.tell("FailedPostStartHook", f"PostStart hook failed: {said}", "Warning")
                self.tell("Killing", f"FailedPostStartHook: stopping container {self.name}")
                self.stop(worker.grace)
                self._note_end()

    def _look_for_newest(self) -> None:
        """Take note of a container that was made and could not be started."""
        attempts = self.runtime.containers(self.worker.uid).get(self.name, [])
        if attempts and attempts[-1][0] > self.attempt:
            self.attempt, self.id = attempts[-1]
            self.state = self.runtime.state(self.id)

    def _forget_old(self) -> None:
        """Keep the last container for its log, and none before it."""
        for number, container in self.runtime.containers(self.worker.uid).get(self.name, []):
            if number < self.attempt:
                self.runtime.remove(container)

    def _pull(self) -> bool:
        image, begin, pulled = self.spec["image"], time.monotonic(), []

        def pulling() -> None:
            pulled.append(True)
            self.tell("Pulling", f'Pulling image "{image}"')

        try:
            policy = self.spec.get("imagePullPolicy", "IfNotPresent")
            login = partial(logins.find, self.worker, image)
            self.image_id = self.runtime.ensure_image(image, policy, pulling, login)
        except ImageError as problem:
            if problem.reason == "ErrImagePull":
                self.tell("Failed", f'Failed to pull image "{image}": {problem}', "Warning")
            self.image_delay = min(LONGEST, self.image_delay * 2 or BACK_OFF)
            self._wait(problem.reason, str(problem), self.image_delay)
            return False
        text = f'Container image "{image}" already present on machine'
        if pulled:
            text = f'Successfully pulled image "{image}" in {time.monotonic() - begin:.3f}s'
        self.tell("Pulled", text)
        self.image_delay = 0.0
        return True

    def _wait(self, reason: str, message: str, pause: float, *, told: bool = False) -> None:
        self.waiting, self.retry = (reason, message), time.time() + pause
        if not told:
            text = reason if reason == "ErrImagePull" else message
            self.tell("Failed", f"Error: {text}", "Warning")

    def _guard(self) -> None:
        """Start the probes whose time has come."""
        if not self.handle:
            worker = self.worker
            self.handle = Handler(self.runtime, worker.node.folder, worker.address, self.spec)
        for kind in ("startup", "liveness", "readiness"):
            spec = self.spec.get(f"{kind}Probe")
            if not spec or kind in self.probes or (kind != "startup" and not self.started):
                continue
            self.probes[kind] = Probe(
                spec,
                partial(self.handle, spec, self.id),
                partial(self._probed, kind),
                begin=seconds(self.state.started),
                ok=kind == "liveness" or (self.adopted and self._was(kind)),
            )

    def _was(self, kind: str) -> bool:
        """Say what the API still has of a container that is adopted."""
        for old in self.worker.pod.get("status", {}).get("containerStatuses", []):
            if old["name"] == self.name and old.get("containerID", "").endswith(self.id):
                return old["ready"] if kind == "readiness" else old.get("started", False)
        return False

    def _probed(self, kind: str, good: bool, said: str) -> None:
        if not good:
            text = f"{kind.capitalize()} probe failed: {said.strip()}"
            self.tell("Unhealthy", text, "Warning")
        self.worker.wake.set()

    def _quiet(self) -> None:
        for probe in self.probes.values():
            probe.stop()
        self.probes = {}
