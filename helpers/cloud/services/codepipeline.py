"""CodePipeline: pipelines that run, with the permissions of their roles.

``helpers.cloud.codepipeline`` has what they consist of; here are the operations. A source that is
polled is looked at every two seconds. Not here: webhooks, custom actions, jobs of third parties,
conditions of stages, triggers of connections, several regions.
"""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

from botocore import xform_name
from moto.codepipeline import urls
from moto.codepipeline.models import codepipeline_backends
from moto.core.base_backend import BaseBackend
from moto.core.responses import ActionResult, BaseResponse
from moto.core.utils import utcnow

from helpers.cloud.calls import Refusal
from helpers.cloud.codepipeline import actions, state, structure
from helpers.cloud.codepipeline.execution import RUNNING, Execution, Job, Pipeline
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import sts
from helpers.cloud.stacks.api import Caller

POLL_SECONDS = 2


class Response(BaseResponse):
    """Reads the parameters of a call, and has the backend's method of its name answer it."""

    def __init__(self) -> None:
        super().__init__(service_name="codepipeline")
        self.automated_parameter_parsing = True

    def call_action(self):
        """Answer a call."""
        backend = codepipeline_backends[ACCOUNT][self.region]
        method = getattr(backend, xform_name(self._get_action()), None)
        if not method:
            raise NotImplementedError("webhooks, custom actions and conditions")
        asked = dict(self.params) | {"caller": sts.caller(self.get_access_key())[0]}
        return self.serialized(ActionResult(method(asked)))


class Backend(BaseBackend):
    """The pipelines of a region. A method is an operation: it takes and returns what AWS does."""

    _url_module = SimpleNamespace(url_bases=urls.url_bases, url_paths={"{0}/$": Response.dispatch})

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.pipelines: dict[str, Pipeline] = {}
        threading.Thread(target=self._poll, daemon=True).start()

    # --- Pipelines

    def create_pipeline(self, asked: dict) -> dict:
        """Make a pipeline and start it."""
        facts, tags = self._checked(asked["pipeline"]), asked.get("tags") or []
        made = Pipeline(self.region_name, facts, {one["key"]: one["value"] for one in tags})
        if self.pipelines.setdefault(made.name, made) is not made:
            text = f"A pipeline with the name '{made.name}' already exists in account '{ACCOUNT}'"
            raise Refusal("PipelineNameInUseException", text)
        made.start("CreatePipeline", asked["caller"])
        return {"pipeline": made.facts, "tags": tags}

    def update_pipeline(self, asked: dict) -> dict:
        """Make the next version of a pipeline."""
        found = self.find(asked["pipeline"]["name"])
        facts = self._checked(asked["pipeline"])
        with found.changed:
            found.update(facts)
        return {"pipeline": found.facts}

    def get_pipeline(self, asked: dict) -> dict:
        """Return a pipeline as it is, or as it was in a version."""
        found = self.find(asked["name"])
        version = asked.get("version") or len(found.versions)
        if version > len(found.versions):
            text = f"Pipeline '{found.name}' does not have a version {version}"
            raise Refusal("PipelineVersionNotFoundException", text)
        times = {"created": found.created, "updated": found.updated}
        metadata = {"pipelineArn": found.arn, **times}
        return {"pipeline": found.versions[version - 1], "metadata": metadata}

    def list_pipelines(self, asked: dict) -> dict:
        """Return all pipelines in a few words."""
        names = ("name", "version", "pipelineType", "executionMode")
        found = [
            {name: one.facts[name] for name in names}
            | {"created": one.created, "updated": one.updated}
            for _, one in sorted(self.pipelines.items())
        ]
        return _page("pipelines", found, asked)

    def delete_pipeline(self, asked: dict) -> dict:
        """Delete a pipeline and end what it does."""
        if found := self.pipelines.pop(asked["name"], None):
            found.end()
        return {}

    def list_tags_for_resource(self, asked: dict) -> dict:
        """Return the tags of a pipeline."""
        tags = self._tagged(asked["resourceArn"]).tags
        return {"tags": [{"key": key, "value": value} for key, value in tags.items()]}

    def tag_resource(self, asked: dict) -> dict:
        """Add tags to a pipeline."""
        tags = self._tagged(asked["resourceArn"]).tags
        tags.update({one["key"]: one["value"] for one in asked["tags"]})
        return {}

    def untag_resource(self, asked: dict) -> dict:
        """Take tags away."""
        for key in asked["tagKeys"]:
            self._tagged(asked["resourceArn"]).tags.pop(key, None)
        return {}

    # --- Executions

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
        one, stage = self._execution(asked), self._stage(asked)
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
            runs = [job for job in found.jobs if (job.stage, job.name) == (stage, name)]
            tokens = {job.token: job for job in runs if job.token}
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
        """Note that a function of Lambda has done its job."""
        return self._answer(asked)

    def put_job_failure_result(self, asked: dict) -> dict:
        """Note that a function of Lambda has failed."""
        return self._answer(asked)

    # --- State and history

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
        return _page("pipelineExecutionSummaries", found, asked)

    def list_action_executions(self, asked: dict) -> dict:
        """Return what the actions did, the newest first."""
        found, chosen = self.find(asked["pipelineName"]), asked.get("filter") or {}
        latest = (chosen.get("latestInPipelineExecution") or {}).get("pipelineExecutionId")
        wanted = chosen.get("pipelineExecutionId") or latest
        if wanted:
            self._execution(asked | {"pipelineExecutionId": wanted})
        jobs = [job for job in reversed(found.jobs) if wanted in (None, job.execution.id)]
        return _page("actionExecutionDetails", [state.action(job) for job in jobs], asked)

    # ---

    def find(self, name: str) -> Pipeline:
        """Return a pipeline, if there is one of this name."""
        if name not in self.pipelines:
            text = f"Account '{ACCOUNT}' does not have a pipeline with name '{name}'"
            raise Refusal("PipelineNotFoundException", text)
        return self.pipelines[name]

    def _checked(self, facts: dict) -> dict:
        sts.assume(facts["roleArn"], "codepipeline")
        return structure.checked(facts, self.region_name)

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

    def _tagged(self, arn: str) -> Pipeline:
        for one in self.pipelines.values():
            if one.arn == arn:
                return one
        raise Refusal("ResourceNotFoundException", f"There is no pipeline {arn}")

    def _answer(self, asked: dict) -> dict:
        jobs: list[Job] = [job for one in self.pipelines.values() for job in one.jobs]
        for job in jobs:
            if job.id == asked["jobId"] and job.action["actionTypeId"]["category"] == "Invoke":
                job.answer = asked
                job.answered.set()
                return {}
        raise Refusal("JobNotFoundException", f"There is no job {asked['jobId']}")

    def _poll(self) -> None:
        """Start pipelines whose sources have changed, where they say that they look themselves."""
        while True:
            time.sleep(POLL_SECONDS)
            for pipeline in list(self.pipelines.values()):
                for action in pipeline.facts["stages"][0]["actions"]:
                    if action["configuration"].get("PollForSourceChanges", "true") != "false":
                        _look(pipeline, action)


def find(region: str, name: str) -> Pipeline:
    """Return a pipeline of any region.

    Raises:
        Refusal: there is none of this name.
    """
    return codepipeline_backends[ACCOUNT][region].find(name)


def _look(pipeline: Pipeline, action: dict) -> None:
    """Start a pipeline if a source is another than its last execution has found."""
    name, settings = action["name"], action["configuration"]
    role = action.get("roleArn") or pipeline.facts["roleArn"]
    before = pipeline.seen.get(name)
    try:
        call = Caller(*sts.assume(role, "codepipeline"), pipeline.region)
        now = actions.REVISIONS[action["actionTypeId"]["provider"]](settings, call)
    except Exception:  # not there, or not allowed: the next execution is going to say so
        return
    with pipeline.changed:
        if before == pipeline.seen.get(name) != now and not _sourcing(pipeline):
            pipeline.seen[name] = now
            pipeline.start("PollForSourceChanges", name)


def _sourcing(pipeline: Pipeline) -> bool:
    """Say whether an execution is about to look at the sources, or does so."""
    first = pipeline.facts["stages"][0]["name"]
    running = [one for one in pipeline.executions.values() if one.status == "InProgress"]
    return any(one.stages.get(first, "InProgress") == "InProgress" for one in running)


def _page(name: str, found: list[dict], asked: dict) -> dict:
    """Return a part of a list, and where the next part begins."""
    begin, size = int(asked.get("nextToken") or 0), asked.get("maxResults") or 100
    more = {"nextToken": str(begin + size)} if len(found) > begin + size else {}
    return {name: found[begin : begin + size], **more}


codepipeline_backends.backend = Backend
