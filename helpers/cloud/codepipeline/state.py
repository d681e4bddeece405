"""What a pipeline looks like from outside: the answers about its state and its history."""

from __future__ import annotations

from helpers.cloud.codepipeline.execution import Execution, Pipeline
from helpers.cloud.codepipeline.job import Job


def pipeline(one: Pipeline) -> dict:
    """Return the state of a pipeline at this moment (get-pipeline-state)."""
    with one.changed:
        return {
            "pipelineName": one.name,
            "pipelineVersion": one.facts["version"],
            "stageStates": [_stage(one, stage) for stage in one.facts["stages"]],
            "created": one.created,
            "updated": one.updated,
        }


def _stage(one: Pipeline, stage: dict) -> dict:
    name = stage["name"]
    closed = one.transitions.get(name)
    found = {
        "stageName": name,
        "inboundTransitionState": closed or {"enabled": True},
        "actionStates": [_action(one, name, action) for action in stage["actions"]],
    }
    if waiting := one.waiting[name]:
        facts = [{"pipelineExecutionId": w.id, "status": "InProgress"} for w in waiting]
        found |= {"inboundExecution": facts[-1], "inboundExecutions": facts}
    if last := one.entered.get(name):
        status = last.stages[name]
        if status == "InProgress" and last.status == "Stopping":
            status = "Stopping"
        found["latestExecution"] = {"pipelineExecutionId": last.id, "status": status}
    return found


def _action(one: Pipeline, stage: str, action: dict) -> dict:
    found, name = {"actionName": action["name"]}, action["name"]
    runs = one.runs(stage, name)
    if not runs:
        return found
    job = runs[-1]
    latest = {"actionExecutionId": job.id, "status": job.status, "lastStatusChange": job.updated}
    latest |= {n: v for n, v in job.external.items() if n != "externalExecutionSummary"}
    if summary := job.external.get("externalExecutionSummary"):
        latest["summary"] = summary
    if job.error:
        latest["errorDetails"] = job.error
    if job.by:
        latest["lastUpdatedBy"] = job.by
    if job.token and job.status == "InProgress" and not job.answered.is_set():
        latest["token"] = job.token
    if revision := job.execution.revisions.get(name):
        current = {"revisionId": revision["revisionId"], "created": job.updated}
        found["currentRevision"] = current
    if entity := action["configuration"].get("ExternalEntityLink"):
        found["entityUrl"] = entity
    return found | {"latestExecution": latest}


def execution(one: Execution) -> dict:
    """Return an execution (get-pipeline-execution)."""
    found = {
        "pipelineName": one.pipeline.name,
        "pipelineVersion": one.facts["version"],
        "pipelineExecutionId": one.id,
        "status": one.status,
        "artifactRevisions": [{"name": n, **about} for n, about in one.revisions.items()],
        "variables": [{"name": n, "resolvedValue": v} for n, v in one.variables.items()],
        "trigger": one.trigger,
        "executionMode": one.mode,
        "executionType": one.kind,
    }
    if one.target:
        found["rollbackMetadata"] = {"rollbackTargetPipelineExecutionId": one.target}
    return found | ({"statusSummary": one.reason} if one.reason else {})


def summary(one: Execution) -> dict:
    """Return an execution as the list has it (list-pipeline-executions)."""
    names = "pipelineExecutionId status statusSummary trigger executionMode executionType".split()
    found = {n: v for n, v in execution(one).items() if n in (*names, "rollbackMetadata")}
    sources = [{"actionName": n, **about} for n, about in one.revisions.items()]
    found |= {"startTime": one.started, "lastUpdateTime": one.updated, "sourceRevisions": sources}
    return found | ({"stopTrigger": {"reason": one.reason}} if one.reason else {})


def action(job: Job) -> dict:
    """Return an action as it was executed (list-action-executions)."""
    given = job.action
    result = dict(job.external) | ({"errorDetails": job.error} if job.error else {})
    asked = {
        "actionTypeId": given["actionTypeId"],
        "configuration": given["configuration"],
        "resolvedConfiguration": job.configuration,
        "region": given["region"],
        "inputArtifacts": _located(job.inputs),
    }
    asked |= {n: given[n] for n in ("roleArn", "namespace") if n in given}
    made = job.outputs if job.status == "Succeeded" else {}
    found = {
        "pipelineExecutionId": job.execution.id,
        "actionExecutionId": job.id,
        "pipelineVersion": job.execution.facts["version"],
        "stageName": job.stage,
        "actionName": job.name,
        "startTime": job.started,
        "lastUpdateTime": job.updated,
        "status": job.status,
        "input": asked,
        "output": {
            "outputArtifacts": _located(made),
            "executionResult": result,
            "outputVariables": job.variables,
        },
    }
    return found | ({"updatedBy": job.by} if job.by else {})


def _located(artifacts: dict[str, tuple[str, str]]) -> list[dict]:
    pairs = artifacts.items()
    return [{"name": n, "s3location": {"bucket": b, "key": k}} for n, (b, k) in pairs]
