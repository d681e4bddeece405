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
from collections.abc import Collection

from moto.core.utils import utcnow

from helpers.cloud.codepipeline.job import Job
from helpers.cloud.environment import ACCOUNT

RUNNING = ("InProgress", "Stopping")


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

    def runs(self, stage: str, action: str) -> list[Job]:
        """Return what an action did, the newest last."""
        return [job for job in self.jobs if (job.stage, job.name) == (stage, action)]

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
