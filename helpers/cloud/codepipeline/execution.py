"""How an execution goes through its pipeline, stage by stage, action by action.

Each execution and each of its actions has a thread. All of a pipeline's facts change under its
condition ``changed``, so that whoever asks for its state sees what is so at that moment.
"""

from __future__ import annotations

import itertools
import threading
import traceback
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection

from botocore.exceptions import ClientError
from moto.core.utils import utcnow

from helpers.cloud.calls import Refusal
from helpers.cloud.codepipeline import variables
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import sts
from helpers.cloud.stacks.api import Caller, Failure

RUNNING = ("InProgress", "Stopping")
UNRESOLVED = (
    "An action in this pipeline failed because one or more variables could not be resolved: Action "
    "name={action}. This can result when a variable is referenced that does not exist. Validate "
    "the pipeline variables are correct in the action configuration. Not found: {names}"
)


class Failed(Exception):
    """An action fails; the code and the message are its error details."""

    def __init__(self, message: str, code: str = "JobFailed") -> None:
        super().__init__(message)
        self.code = code


class Pipeline:
    """A pipeline, its versions and its executions."""

    def __init__(self, region: str, facts: dict, tags: dict[str, str]) -> None:
        """Start nothing yet."""
        self.region, self.name, self.tags = region, facts["name"], tags
        self.arn = f"arn:aws:codepipeline:{region}:{ACCOUNT}:{self.name}"
        self.created = utcnow()
        self.versions: list[dict] = []
        self.executions: dict[str, Execution] = {}  # the oldest first
        self.jobs: list[Job] = []
        self.transitions: dict[str, dict] = {}  # of stages that one may not enter
        self.waiting: dict[str, list[Execution]] = defaultdict(list)  # before a stage
        self.inside: dict[str, Execution] = {}  # who has a stage for itself
        self.entered: dict[str, Execution] = {}  # who has come into a stage last
        self.seen: dict[str, str] = {}  # the revision that a source action has found last
        self.changed = threading.Condition(threading.RLock())
        self.update(facts)

    def update(self, facts: dict) -> None:
        """Add a version. Executions that run keep theirs."""
        self.updated = utcnow()
        self.facts = facts | {"version": len(self.versions) + 1}
        self.versions.append(self.facts)

    def start(self, trigger: str, detail: str, given=(), wanted=(), token: str = "") -> Execution:
        """Start an execution.

        Args:
            trigger: why (``CreatePipeline``).
            detail: who or what it was.
            given: values of the pipeline's variables (a mapping).
            wanted: revisions of source actions (a mapping), where not the newest.
            token: of the caller, who gets the same execution if it asks twice.
        """
        defaults = {one["name"]: one.get("defaultValue") for one in self.facts.get("variables", ())}
        made = Execution(self, {"triggerType": trigger, "triggerDetail": detail}, token)
        made.variables, made.wanted = defaults | dict(given), dict(wanted)
        with self.changed:
            self.executions[made.id] = made
            made.tell("STARTED")
            made.go(self.facts["stages"])
        return made

    def roll_back(self, target: Execution, stage: dict, who: str) -> Execution:
        """Run a stage again with the artifacts and variables of an earlier execution."""
        made = Execution(self, {"triggerType": "ManualRollback", "triggerDetail": who}, "")
        made.kind, made.target, made.variables = "ROLLBACK", target.id, target.variables
        made.outputs, made.artifacts = dict(target.outputs), dict(target.artifacts)
        made.revisions = dict(target.revisions)
        with self.changed:
            self.executions[made.id] = made
            made.tell("STARTED")
            made.go([stage])
        return made

    def end(self) -> None:
        """Stop everything, since the pipeline is deleted."""
        with self.changed:
            for one in self.executions.values():
                if one.status in RUNNING:
                    one.stop(abandon=True, reason="The pipeline was deleted")
        for job in self.jobs:
            job.cancel()


class Execution:
    """A run of a pipeline with the sources of one moment."""

    def __init__(self, pipeline: Pipeline, trigger: dict[str, str], token: str) -> None:
        self.id, self.pipeline, self.facts = str(uuid.uuid4()), pipeline, pipeline.facts
        self.mode, self.trigger, self.token = self.facts["executionMode"], trigger, token
        self.status, self.reason = "InProgress", ""
        self.kind, self.target = "STANDARD", ""  # or ROLLBACK, and to which execution
        self.started = self.updated = utcnow()
        self.variables: dict[str, str] = {}
        self.wanted: dict[str, str] = {}  # revisions, by source action
        self.outputs: dict[str, dict[str, str]] = {}  # by namespace
        self.artifacts: dict[str, tuple[str, str]] = {}  # bucket and key
        self.revisions: dict[str, dict] = {}  # by source action
        self.stages: dict[str, str] = {}  # their status

    def known(self) -> dict[str, dict[str, str]]:
        """Return the variables of all namespaces."""
        own = {"PipelineExecutionId": self.id}
        return self.outputs | {"codepipeline": own, "variables": self.variables}

    def go(self, stages: list[dict], done: Collection[str] = ()) -> None:
        """Run stages in a thread, without the actions of the first that are done already."""
        threading.Thread(target=self._run, args=(stages, done), daemon=True).start()

    def end(self, status: str) -> None:
        """Note how the execution has ended; whoever waits is woken up."""
        self.status, self.updated = status, utcnow()
        self.pipeline.changed.notify_all()
        self.tell(status.upper())

    def stop(self, abandon: bool, reason: str) -> None:
        """Stop: now, or when the actions that run are done."""
        self.status, self.reason, self.updated = "Stopping", reason, utcnow()
        self.tell("STOPPING")
        for job in self.pipeline.jobs if abandon else ():
            if job.execution is self and job.status == "InProgress":
                job.settle("Abandoned")
        self.pipeline.changed.notify_all()

    def tell(self, state: str, kind: str = "Pipeline", **more) -> None:
        """Tell EventBridge what happens."""
        from helpers.cloud.services import events

        detail = {"pipeline": self.pipeline.name, "execution-id": self.id, "state": state}
        detail |= {"version": float(self.facts["version"]), **more}
        kind = f"CodePipeline {kind} Execution State Change"
        pipeline = self.pipeline
        events.emit(pipeline.region, "aws.codepipeline", kind, [pipeline.arn], detail)

    def _run(self, stages: list[dict], done: Collection[str]) -> None:
        try:
            for stage in stages:
                if not self._enter(stage["name"]) or not self._pass(stage, done):
                    return
                done = ()
            with self.pipeline.changed:
                self.end("Stopped" if self.status == "Stopping" else "Succeeded")
        except Exception:  # a fault of ours
            traceback.print_exc()
            with self.pipeline.changed:
                self.end("Failed")

    def _enter(self, stage: str) -> bool:
        """Wait before a stage until it is free; say whether the execution goes on."""
        pipeline = self.pipeline
        with pipeline.changed:
            line = pipeline.waiting[stage]
            if self.mode == "SUPERSEDED":
                for older in [one for one in line if one.started < self.started]:
                    line.remove(older)
                    older.end("Superseded")
            line.append(self)
            pipeline.changed.wait_for(lambda: self.status != "InProgress" or self._free(stage))
            if self in line:
                line.remove(self)
            if self.status == "InProgress":
                if self.mode != "PARALLEL":
                    pipeline.inside[stage] = self
                pipeline.entered[stage] = self
                self._note(stage, "InProgress", "STARTED")
                return True
            if self.status == "Stopping":
                self.end("Stopped")
            pipeline.changed.notify_all()
            return False

    def _free(self, stage: str) -> bool:
        pipeline = self.pipeline
        if stage in pipeline.transitions:
            return False
        alone = stage not in pipeline.inside and pipeline.waiting[stage][0] is self
        return alone or self.mode == "PARALLEL"

    def _pass(self, stage: dict, done: Collection[str]) -> bool:
        """Run the actions of a stage, and leave it; say whether the execution goes on."""
        pipeline, order = self.pipeline, lambda action: action["runOrder"]
        status = "Succeeded"
        for _, group in itertools.groupby(sorted(stage["actions"], key=order), order):
            jobs = [Job(self, stage["name"], one) for one in group if one["name"] not in done]
            with pipeline.changed:
                if self.status == "Stopping":
                    status = "Stopped"
                    break
                for job in jobs:
                    job.go()
                pipeline.changed.wait_for(lambda: all(j.status != "InProgress" for j in jobs))  # noqa: B023
                if any(job.status == "Failed" for job in jobs):
                    status = "Failed"
                    break
                if any(job.status == "Abandoned" for job in jobs):
                    status = "Stopped"
                    break
        with pipeline.changed:
            pipeline.inside.pop(stage["name"], None)
            self._note(stage["name"], status, status.upper())
            if status != "Succeeded":
                self.end("Stopped" if self.status == "Stopping" else status)
            pipeline.changed.notify_all()
        return status == "Succeeded"

    def _note(self, stage: str, status: str, state: str) -> None:
        self.stages[stage], self.updated = status, utcnow()
        self.tell(state, "Stage", stage=stage)


class Job:
    """An action of an execution.

    What a provider's function (``actions``) finds out it writes into ``external`` (the execution's
    id, summary and URL in its own service) and ``variables``.
    """

    def __init__(self, execution: Execution, stage: str, action: dict) -> None:
        self.id, self.execution, self.pipeline = str(uuid.uuid4()), execution, execution.pipeline
        self.stage, self.action, self.name = stage, action, action["name"]
        self.status, self.error = "InProgress", {}
        self.started = self.updated = utcnow()
        self.configuration: dict[str, str] = {}
        self.environment: dict[str, str] = {}
        self.external: dict[str, str] = {}
        self.variables: dict[str, str] = {}
        self.wanted = execution.wanted.get(self.name, "")  # the revision of a source
        self.token, self.by = "", ""
        self.answered, self.answer = threading.Event(), {}
        self.cancel: Callable[[], object] = lambda: None  # ends what the action has started
        bucket, folder = execution.facts["artifactStore"]["location"], self.pipeline.name[:20]
        self.inputs = [one["name"] for one in action["inputArtifacts"]]
        self.outputs = {
            one["name"]: (bucket, f"{folder}/{one['name'][:10]}/{uuid.uuid4().hex[:7]}.zip")
            for one in action["outputArtifacts"]
        }

    @property
    def role(self) -> str:
        """The ARN of the role that the action is done as."""
        return self.action.get("roleArn") or self.execution.facts["roleArn"]

    def seconds(self, limit: int) -> int:
        """Return how long the action may take: what it says itself, or the limit."""
        return int(self.action.get("timeoutInMinutes", 0)) * 60 or limit

    def revised(self, revision: str, summary: str) -> None:
        """Note what a source action has found."""
        self.external = {"externalExecutionId": revision, "externalExecutionSummary": summary}
        about = {"revisionId": revision, "revisionSummary": summary}
        self.execution.revisions[self.name] = about

    def go(self) -> None:
        """Start the action."""
        self.started = self.updated = utcnow()
        self.pipeline.jobs.append(self)
        self._tell("STARTED")
        threading.Thread(target=self._run, daemon=True).start()

    def caller(self) -> Caller:
        """Return the API in the name of the pipeline's role, or of the action's, with new keys."""
        role, own = self.execution.facts["roleArn"], self.action.get("roleArn")
        call = Caller(*sts.assume(role, "codepipeline"), self.pipeline.region)
        if not own:
            return call
        keys = call("sts", "AssumeRole", {"RoleArn": own, "RoleSessionName": self.id})
        keys = [keys["Credentials"][n] for n in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
        return Caller(*keys, self.pipeline.region)

    def settle(self, status: str, error: dict | None = None) -> None:
        """Note how the action has ended, unless it was abandoned before."""
        with self.pipeline.changed:
            if self.status != "InProgress":
                return
            self.status, self.error, self.updated = status, error or {}, utcnow()
            if status == "Succeeded":
                self.execution.artifacts |= self.outputs
                if space := self.action.get("namespace"):
                    self.execution.outputs[space] = self.variables
            self.answered.set()
            self._tell(status.upper())
            self.pipeline.changed.notify_all()

    def _run(self) -> None:
        from helpers.cloud.codepipeline import actions

        try:
            known = self.execution.known()
            self.configuration = variables.resolve(self.action["configuration"], known)
            pairs = self.action.get("environmentVariables", ())
            given = {one["name"]: one["value"] for one in pairs}
            self.environment = variables.resolve(given, known)
            actions.find(self.action["actionTypeId"]).run(self, self.caller())
            self.settle("Succeeded")
            return
        except variables.Unresolved as problem:
            text = UNRESOLVED.format(action=self.name, names=problem)
            error = {"code": "ConfigurationError", "message": text}
        except Failed as problem:
            error = {"code": problem.code, "message": str(problem)}
        except ClientError as problem:
            error = explained(problem)
        except (Refusal, Failure, NotImplementedError) as problem:
            error = {"code": "JobFailed", "message": str(problem)}
            if "not authorized" in str(problem):
                error["code"] = "PermissionError"
        except Exception as problem:  # a fault of ours
            traceback.print_exc()
            error = {"code": "InternalError", "message": repr(problem)}
        self.settle("Failed", error)

    def _tell(self, state: str) -> None:
        about = {"stage": self.stage, "action": self.name, "type": self.action["actionTypeId"]}
        self.execution.tell(state, "Action", **about)


def explained(problem: ClientError) -> dict[str, str]:
    """Return an error of a service as the details of a failed action."""
    error, answer = problem.response["Error"], problem.response["ResponseMetadata"]
    text = (
        f"{error.get('Message', '')} (Operation: {problem.operation_name}; Status Code: "
        f"{answer.get('HTTPStatusCode')}; Error Code: {error['Code']}; Request ID: "
        f"{answer.get('RequestId', '-')})"
    )
    denied = "AccessDenied" in error["Code"] or "not authorized" in text
    return {"code": "PermissionError" if denied else "JobFailed", "message": text}
