"""The operations on executions: they are started, stopped, approved, looked at."""

from __future__ import annotations

import re

from moto.core.utils import utcnow

from helpers.cloud.calls import Refusal
from helpers.cloud.codepipeline import state
from helpers.cloud.codepipeline.execution import RUNNING, Execution, Pipeline
from helpers.cloud.codepipeline.job import Job


class Operations:
    """What one does with the executions of the pipelines of a region."""

    pipelines: dict[str, Pipeline]

    def start_pipeline_execution(self, asked: dict) -> dict:
        """Start an execution; the same token gives the same execution."""
        found, token = self.find(asked["name"]), asked.get("clientRequestToken") or ""
        for one in found.executions.values() if token else ():
            if one.token == token:
                return {"pipelineExecutionId": one.id}
        given = {one["name"]: one["value"] for one in asked.get("variables") or []}
        known = {one["name"] for one in found.facts.get("variables", ())}
        if unknown := given.keys() - known:
            text = f"Variables not declared in the pipeline: {', '.join(sorted(unknown))}"
            raise Refusal("ValidationException", text)
        defaults = {
            one["name"] for one in found.facts.get("variables", ()) if "defaultValue" in one
        }
        if lacking := known - defaults - given.keys():
            text = f"Variables without a value: {', '.join(sorted(lacking))}"
            raise Refusal("ValidationException", text)
        wanted = {r["actionName"]: r["revisionValue"] for r in asked.get("sourceRevisions") or []}
        trigger = ("StartPipelineExecution", asked["caller"])
        return {"pipelineExecutionId": found.start(*trigger, given, wanted, token).id}

    def stop_pipeline_execution(self, asked: dict) -> dict:
        """Stop an execution, and with ``abandon`` its actions too."""
        one = self._execution(asked, "PipelineExecutionNotStoppableException")
        with one.pipeline.changed:
            if one.status not in RUNNING:
                text = f"The execution {one.id} cannot be stopped: its status is {one.status}"
                raise Refusal("PipelineExecutionNotStoppableException", text)
            if one.status == "Stopping" and not asked.get("abandon"):
                text = f"The execution {one.id} is being stopped already"
                raise Refusal("DuplicatedStopRequestException", text)
            one.stop(bool(asked.get("abandon")), asked.get("reason") or "")
        return {"pipelineExecutionId": one.id}

    def retry_stage_execution(self, asked: dict) -> dict:
        """Run a stage that failed again: all of it, or only the actions that failed."""
        one = self._execution(asked, "NotLatestPipelineExecutionException")
        stage = self._stage(asked)
        pipeline, names = one.pipeline, [stage["name"] for stage in one.facts["stages"]]
        with pipeline.changed:
            if pipeline.entered.get(stage) is not one:
                text = f"{one.id} is not the latest execution in the stage {stage}"
                raise Refusal("NotLatestPipelineExecutionException", text)
            if one.status in RUNNING or one.stages[stage] not in ("Failed", "Stopped"):
                text = f"Stage {stage} cannot be retried: its status is {one.stages[stage]}"
                raise Refusal("StageNotRetryableException", text)
            if one.facts is not pipeline.facts:
                text = "The pipeline was changed after this execution: start a new one"
                raise Refusal("StageNotRetryableException", text)
            runs = {j.name: j for j in pipeline.jobs if (j.execution, j.stage) == (one, stage)}
            done = [name for name, job in runs.items() if job.status == "Succeeded"]
            one.status, one.reason, one.updated = "InProgress", "", utcnow()
            one.tell("RESUMED")
            again = done if asked["retryMode"] == "FAILED_ACTIONS" else ()
            one.go(one.facts["stages"][names.index(stage) :], again)
        return {"pipelineExecutionId": one.id}

    def rollback_stage(self, asked: dict) -> dict:
        """Run a stage again with what an earlier execution had in it."""
        found, stage = self.find(asked["pipelineName"]), self._stage(asked)
        target = self._execution(
            asked | {"pipelineExecutionId": asked["targetPipelineExecutionId"]}
        )
        if found.facts["pipelineType"] != "V2":
            raise Refusal("UnableToRollbackStageException", "Rollback needs a pipeline of type V2")
        if target.stages.get(stage) != "Succeeded":
            text = f"The execution {target.id} has not succeeded in the stage {stage}"
            raise Refusal("UnableToRollbackStageException", text)
        if target.facts is not found.facts:
            text = f"The pipeline was changed after the execution {target.id}"
            raise Refusal("PipelineExecutionOutdatedException", text)
        (only,) = [one for one in found.facts["stages"] if one["name"] == stage]
        return {"pipelineExecutionId": found.roll_back(target, only, asked["caller"]).id}

    def enable_stage_transition(self, asked: dict) -> dict:
        """Let executions into a stage again."""
        found, stage = self.find(asked["pipelineName"]), self._stage(asked)
        with found.changed:
            found.transitions.pop(stage, None)
            found.changed.notify_all()
        return {}

    def disable_stage_transition(self, asked: dict) -> dict:
        """Let no execution into a stage; the newest waits before it."""
        found, stage = self.find(asked["pipelineName"]), self._stage(asked)
        if asked["transitionType"] != "Inbound":
            raise NotImplementedError("transitions are closed where a stage begins: Inbound")
        facts = {"enabled": False, "disabledReason": asked["reason"], "lastChangedAt": utcnow()}
        found.transitions[stage] = facts | {"lastChangedBy": asked["caller"]}
        return {}

    def put_approval_result(self, asked: dict) -> dict:
        """Approve or reject."""
        found, stage = self.find(asked["pipelineName"]), self._stage(asked)
        name = asked["actionName"]
        with found.changed:
            tokens = {job.token: job for job in found.runs(stage, name) if job.token}
            if not tokens:
                text = f"There is no approval {name} in the stage {stage} that waits"
                raise Refusal("ActionNotFoundException", text)
            if asked["token"] not in tokens:
                raise Refusal("InvalidApprovalTokenException", "The approval token is not valid")
            job = tokens[asked["token"]]
            if job.status != "InProgress" or job.answered.is_set():
                text = "The approval action has already been approved or rejected."
                raise Refusal("ApprovalAlreadyCompletedException", text)
            job.by, job.answer = asked["caller"], asked["result"]
            job.answered.set()
        return {"approvedAt": utcnow()}

    def put_job_success_result(self, asked: dict) -> dict:
        """Note that a function of Lambda has done its job, or has failed."""
        jobs: list[Job] = [job for one in self.pipelines.values() for job in one.jobs]
        for job in jobs:
            if job.id == asked["jobId"] and job.action["actionTypeId"]["category"] == "Invoke":
                if job.status != "InProgress" or job.answered.is_set():
                    text = f"The result of the job {job.id} has been reported already"
                    raise Refusal("InvalidJobStateException", text)
                job.answer = asked
                job.answered.set()
                return {}
        raise Refusal("JobNotFoundException", f"There is no job {asked['jobId']}")

    put_job_failure_result = put_job_success_result

    def get_pipeline_state(self, asked: dict) -> dict:
        """Return what happens in a pipeline."""
        return state.pipeline(self.find(asked["name"]))

    def get_pipeline_execution(self, asked: dict) -> dict:
        """Return an execution."""
        return {"pipelineExecution": state.execution(self._execution(asked))}

    def list_pipeline_executions(self, asked: dict) -> dict:
        """Return the executions, the newest first."""
        wanted = ((asked.get("filter") or {}).get("succeededInStage") or {}).get("stageName")
        found = [
            state.summary(one)
            for one in reversed(self.find(asked["pipelineName"]).executions.values())
            if not wanted or one.stages.get(wanted) == "Succeeded"
        ]
        return page("pipelineExecutionSummaries", found, asked)

    def list_action_executions(self, asked: dict) -> dict:
        """Return what the actions did, the newest first."""
        found, chosen = self.find(asked["pipelineName"]), asked.get("filter") or {}
        latest = (chosen.get("latestInPipelineExecution") or {}).get("pipelineExecutionId")
        wanted = chosen.get("pipelineExecutionId") or latest
        if wanted:
            self._execution(asked | {"pipelineExecutionId": wanted})
        jobs = [job for job in reversed(found.jobs) if wanted in (None, job.execution.id)]
        return page("actionExecutionDetails", [state.action(job) for job in jobs], asked)

    def _execution(self, asked: dict, code="PipelineExecutionNotFoundException") -> Execution:
        found, one = self.find(asked["pipelineName"]), asked["pipelineExecutionId"]
        if one not in found.executions:
            text = f"Pipeline '{found.name}' does not have an execution with id '{one}'"
            raise Refusal(code, text)
        return found.executions[one]

    def _stage(self, asked: dict) -> str:
        found, name = self.find(asked["pipelineName"]), asked["stageName"]
        if name not in [stage["name"] for stage in found.facts["stages"]]:
            text = f"Pipeline '{found.name}' does not have a stage with name '{name}'"
            raise Refusal("StageNotFoundException", text)
        return name


def page(name: str, found: list[dict], asked: dict) -> dict:
    """Return a part of a list, and where the next part begins.

    Raises:
        Refusal: no list has given such a token.
    """
    token, size = asked.get("nextToken") or "0", asked.get("maxResults") or 100
    if not re.fullmatch("[0-9]+", token):
        raise Refusal("InvalidNextTokenException", f"The next token {token} is not valid")
    begin = int(token)
    more = {"nextToken": str(begin + size)} if len(found) > begin + size else {}
    return {name: found[begin : begin + size], **more}
