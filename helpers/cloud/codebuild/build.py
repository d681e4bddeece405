"""One build, from its queue to its end, in a thread of its own."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
import uuid
from collections.abc import Iterator

from botocore.exceptions import ClientError
from moto.core.utils import utcnow

from helpers import containers, machine
from helpers.cloud.archives import Files
from helpers.cloud.calls import Refusal
from helpers.cloud.codebuild import artifacts, buildspec, changes, image, sources, variables
from helpers.cloud.codebuild.container import HOME, Container
from helpers.cloud.codebuild.errors import Ended, Failure, said
from helpers.cloud.codebuild.logs import Log
from helpers.cloud.services import sts
from helpers.cloud.stacks.api import Caller
from helpers.vm.packages import PackageError

SLOTS = threading.BoundedSemaphore(machine.cores())  # further builds wait in QUEUED
DEAD = (
    "Build container found dead before completing the build. Build container died because it was "
    "out of memory, or the Docker image is not supported."
)
PULL = "Unable to pull customer's container image. CannotPullContainerError: {problem}"
LOGS = (
    "Service role {role} does not allow AWS CodeBuild to create Amazon CloudWatch Logs log streams "
    "for build {arn}. Error message: {problem}"
)


class Build:
    """A build, which begins when it is made.

    Attributes:
        facts: what batch-get-builds says of it.
        done: set once it is over.
    """

    def __init__(
        self,
        region: str,
        facts: dict,
        given: list[dict],
        targets: list[dict],
        service: str = "codebuild",
    ) -> None:
        """Begin a build.

        Args:
            region: where.
            facts: what is known of it.
            given: its sources, as a project has them; all but the first one have a
                ``sourceIdentifier``.
            targets: where its artifacts go, as a project has it.
            service: which is the service role.

        Raises:
            Refusal: CodeBuild may not be the service role.
        """
        self.region, self.facts, self.done = region, facts, threading.Event()
        self._given, self._targets = given, targets
        self._stopping, self._deadline = threading.Event(), float("inf")
        self._keys = sts.assume(facts["serviceRole"], service, f"AWSCodeBuild-{uuid.uuid4()}")
        self._call, logs = Caller(*self._keys, region), facts["logs"]
        self._log = Log(self._call, logs.get("groupName", ""), logs.get("streamName", ""))
        self._log.secrets += self._keys[1:]
        self._container: Container | None = None
        names = [source.get("sourceIdentifier", "") for source in given]
        self._folders = {name: f"{HOME}/src{uuid.uuid4().int % 10**9}/src" for name in names}
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """End the build soon, unless it is over."""
        self._stopping.set()

    def _run(self) -> None:
        waited = False
        try:
            changes.state(self.region, self.facts)
            with self._phase("SUBMITTED"):
                self._open_log()
            self._end_in("queuedTimeoutInMinutes")
            with self._phase("QUEUED"):
                while not (waited := SLOTS.acquire(timeout=0.05)):
                    self._watch()
            self._end_in("timeoutInMinutes")
            with self._phase("PROVISIONING"):
                self._provision()
            with self._phase("DOWNLOAD_SOURCE"):
                spec = self._download()
            status = self._work(spec)
        except Failure:
            status = "FAILED"
        except Ended as problem:
            status = str(problem)
        except Exception:
            traceback.print_exc()
            status = "FAULT"
        with contextlib.suppress(Exception), self._phase("FINALIZING"):
            if self._container:
                self._container.close()
            self._log.flush()
        if waited:
            SLOTS.release()
        now = utcnow()
        self.facts["phases"].append({"phaseType": "COMPLETED", "startTime": now})
        self.facts |= {"endTime": now, "currentPhase": "COMPLETED"}
        self.facts |= {"buildStatus": status, "buildComplete": True}
        self.done.set()
        changes.state(self.region, self.facts)

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        """Record a phase, with what comes of it."""
        clock, status, code, message = time.monotonic(), "SUCCEEDED", "", ""
        entry: dict = {"phaseType": name, "startTime": utcnow()}
        self.facts["phases"].append(dict(entry))  # it is never changed, only replaced
        self.facts["currentPhase"] = name
        try:
            yield
        except Failure as problem:
            status, (code, message) = "FAILED", problem.args
            raise
        except Ended as problem:
            status = str(problem)
            if status == "TIMED_OUT":
                code, message = "BUILD_TIMED_OUT", "Build has timed out. "
            raise
        except Exception as problem:
            status, code, message = "FAULT", "INTERNAL_SERVICE_ERROR", str(problem) or DEAD
            raise
        finally:
            message = self._log.hide(message)
            spent = int(time.monotonic() - clock)
            entry |= {"phaseStatus": status, "endTime": utcnow(), "durationInSeconds": spent}
            entry |= {"contexts": [{"statusCode": code, "message": message}]}
            self.facts["phases"][-1] = entry
            with contextlib.suppress(ClientError):  # it may have lost the permission
                if name not in ("SUBMITTED", "QUEUED", "FINALIZING"):
                    self._log.say(f"Phase complete: {name} State: {status}")
                    self._log.say(f"Phase context status code: {code} Message: {message}")
            changes.phase(self.region, self.facts, entry)

    def _watch(self) -> None:
        """Write what has come of the log, and end the build if it must."""
        self._log.hear(b"")
        if self._stopping.is_set():
            raise Ended("STOPPED")
        if time.monotonic() > self._deadline:
            raise Ended("TIMED_OUT")

    def _end_in(self, limit: str) -> None:
        self._deadline = time.monotonic() + 60 * self.facts[limit]

    def _open_log(self) -> None:
        try:
            self._log.open()
            self._tell_now("Running on the local cloud of this course")
        except ClientError as problem:
            self._log.group = ""
            facts = {"role": self.facts["serviceRole"], "arn": self.facts["arn"]}
            raise Failure("ACCESS_DENIED", LOGS.format(problem=said(problem), **facts)) from None

    def _provision(self) -> None:
        import docker

        wanted = self.facts["environment"]
        try:
            containers.engine()
            name = image.ready(wanted["image"], self._tell_now, self._call)
            self._watch()
            privileged = bool(wanted.get("privilegedMode"))
            about = {"build": self.facts["id"], "privileged": privileged, "watch": self._watch}
            self._container = Container(name, **about)
        except (RuntimeError, PackageError, ClientError, docker.errors.DockerException) as problem:
            text = PULL.format(problem=said(problem))
            raise Failure("BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE", text) from None

    def _tell_now(self, text: str) -> None:
        self._log.say(text)
        self._log.flush()

    def _download(self) -> buildspec.Buildspec:
        files = self._fetch()
        folder, wanted = self._folders[""], self.facts["source"].get("buildspec")
        self._log.say(f"CODEBUILD_SRC_DIR={folder}")
        wanted = wanted or "buildspec.yml"
        try:
            spec = buildspec.parse(sources.buildspec(self._call, wanted, files, folder))
        except (buildspec.Invalid, ClientError) as problem:
            raise Failure("YAML_FILE_ERROR", said(problem)) from None
        self._log.say("Processing environment variables")
        values, secret = variables.given(self.facts, spec, self._call)
        self._log.secrets += [line for one in secret for line in one.splitlines() if line]
        values |= variables.agent(self.facts, self._keys, self.region, self._folders)
        self._log.say(f"Phases found in YAML: {len(spec.phases)}")
        for name, one in spec.phases.items():
            self._log.say(f" {name.upper()}: {len(one.commands)} commands")
        for note in spec.notes:
            self._log.say(f"Note: {note}")
        if self._container.begin(spec.shell, folder, values):
            raise Failure("CLIENT_ERROR", f"the build image has no {spec.shell}")
        return spec

    def _fetch(self) -> Files:
        """Put the sources into the container, and return the files of the primary one."""
        first: Files = {}
        # A pipeline's artifact is what it is: the version is that of the pipeline's own source.
        artifact = self.facts["source"]["type"] == "CODEPIPELINE"
        version = "" if artifact else self.facts.get("sourceVersion") or ""
        for source in self._given:
            name = source.get("sourceIdentifier", "")
            try:
                files, resolved = sources.fetch(self._call, source, "" if name else version)
            except (ClientError, Refusal, ValueError) as problem:
                where = f"{name or 'primary source'} and source version {version}"
                text = f"{said(problem)} for {where}".strip()
                raise Failure("CLIENT_ERROR", text) from None
            self._container.put(files, self._folders[name])
            if not name:
                first = files
                known = resolved and not artifact
                self.facts |= {"resolvedSourceVersion": resolved} if known else {}
        return first

    def _work(self, spec: buildspec.Buildspec) -> str:
        """Run the phases of the commands, and upload; return the build's status."""
        status = "SUCCEEDED"
        for name in buildspec.PHASES:
            phase = spec.phases.get(name, buildspec.Phase())
            self._log.say(f"Entering phase {name.upper()}")
            try:
                with self._phase(name.upper()):
                    self._commands(phase, spec.shared)
            except Failure:
                status = "FAILED"
                self._container.run("export CODEBUILD_BUILD_SUCCEEDING=0")
                goes_on = name in ("build", "post_build") or phase.on_failure == "CONTINUE"
                if phase.on_failure == "ABORT" or not goes_on:
                    raise
        self.facts["exportedEnvironmentVariables"] = [
            {"name": one, "value": self._container.ask(f"${{{one}-}}")} for one in spec.exported
        ]
        with self._phase("UPLOAD_ARTIFACTS"):
            files = self._container.get(self._folders[""]) if self._targets else {}
            for target in self._targets:
                facts = (self.facts, target, spec.artifacts, files)
                try:
                    artifacts.upload(*facts, self._container, self._log, self._call)
                except ClientError as problem:
                    raise Failure("CLIENT_ERROR", said(problem)) from None
        return status

    def _commands(self, phase: buildspec.Phase, shared: bool) -> None:
        failed = ""
        for group in (phase.commands, phase.finally_):
            for command in group:
                self._log.say(f"Running command {command}")
                script = command if shared else f"(cd {self._folders['']}\n{command}\n)"
                code = self._container.run(script, self._log.hear)
                if code:
                    self._log.say(f"Command did not exit successfully {command} exit status {code}")
                    text = f"Error while executing command: {command}. Reason: exit status {code}"
                    failed = failed or text
                    break
        if failed:
            raise Failure("COMMAND_EXECUTION_ERROR", failed)
