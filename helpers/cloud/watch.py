"""Watch a pipeline at work: a picture of its stages that changes with them."""

from __future__ import annotations

import html
import time
from datetime import UTC, datetime

MARKS = {  # a sign as well as a colour
    "Succeeded": ("✓", "#009E73"),
    "Failed": ("✗", "#D55E00"),
    "InProgress": ("▶", "#0072B2"),
    "waits for approval": ("?", "#CC79A7"),
    "Abandoned": ("–", "#999999"),
}
BOX = "border-left: 4px solid {}; padding: 0.2em 0.8em; text-align: left; vertical-align: top"


def watch(pipeline: str, revision: str = "", seconds: float = 600):
    """Draw the stages of a pipeline until an execution has ended, or waits for somebody.

    It waits for somebody at an approval, and before a stage that is closed.

    Args:
        pipeline: its name.
        revision: watch the newest execution with this source, a commit or an object's version, and
            wait until there is one; without it, the newest execution.
        seconds: how long to watch at most.

    Returns:
        DataFrame with the actions of the execution in the order in which they began: ``status``,
        ``begin`` and ``seconds`` (both in seconds; the first since the execution's start), and what
        is ``said`` of the result. An action that was run again has several rows.

    Raises:
        TimeoutError: it has not ended in time.
    """
    import boto3
    from IPython.display import display

    client, end, shown, picture = boto3.client("codepipeline"), time.monotonic() + seconds, "", None
    while True:
        one = _execution(client, pipeline, revision)
        waits, rows, done = False, [], []
        if one:
            state = client.get_pipeline_state(name=pipeline)["stageStates"]
            done = _actions(client, pipeline, one)
            rows, waits = _look(state, done, one["pipelineExecutionId"])
        text = "\n".join(f"{stage:12} {name:16} {word}" for stage, name, word in rows)
        if text != shown:
            data, shown = {"text/plain": text, "text/html": _drawn(rows)}, text
            if picture:
                picture.update(data, raw=True)
            else:
                picture = display(data, raw=True, display_id=True)
        if one and (waits or one["status"] not in ("InProgress", "Stopping")):
            return _table(one, done)
        if time.monotonic() > end:
            what = one["status"] if one else "not there"
            raise TimeoutError(f"After {seconds} s the execution is {what}: look at the stages.")
        time.sleep(0.2)


def _execution(client, pipeline: str, revision: str) -> dict | None:
    found = client.list_pipeline_executions(pipelineName=pipeline)["pipelineExecutionSummaries"]
    for one in found:
        if not revision or revision in [r["revisionId"] for r in one.get("sourceRevisions", [])]:
            return one
    return None


def _actions(client, pipeline: str, one: dict) -> list[dict]:
    """Return what the actions of an execution did, the newest first."""
    chosen = {"pipelineExecutionId": one["pipelineExecutionId"]}
    pages = client.get_paginator("list_action_executions")
    found = pages.paginate(pipelineName=pipeline, filter=chosen)
    return [action for page in found for action in page["actionExecutionDetails"]]


def _look(state: list[dict], done: list[dict], execution: str) -> tuple[list, bool]:
    """Return stage, action and what it does for each action; and whether somebody is needed."""
    newest = {(one["stageName"], one["actionName"]): one for one in reversed(done)}
    rows, waits = [], False
    for stage in state:
        name, inbound = stage["stageName"], stage.get("inboundExecutions", [])
        before = execution in [one["pipelineExecutionId"] for one in inbound]
        inside = stage.get("latestExecution", {}).get("pipelineExecutionId") == execution
        closed = not stage["inboundTransitionState"]["enabled"]
        waits = waits or (before and closed)
        for action in stage["actionStates"]:
            one = newest.get((name, action["actionName"]))
            word = one["status"] if one else ""
            asked = "token" in action.get("latestExecution", {})
            waits = waits or (asked and (before or inside))
            if asked and inside:
                word = "waits for approval"
            elif one:
                last = one["lastUpdateTime"] if word != "InProgress" else datetime.now(UTC)
                taken = (last - one["startTime"]).total_seconds()
                word += f", {taken:.0f} s" if word == "InProgress" else f", {taken:.1f} s"
            elif closed:
                word = "closed: " + stage["inboundTransitionState"].get("disabledReason", "")
            rows.append((name, action["actionName"], word))
    return rows, waits


def _drawn(rows: list[tuple[str, str, str]]) -> str:
    """Draw stages from left to right, each with its actions."""
    stages: dict[str, list[str]] = {}
    for stage, name, word in rows:
        mark, colour = MARKS.get(word.split(",")[0], ("○", "#cccccc"))
        text = f"{mark} <b>{html.escape(name)}</b><br>{html.escape(word) or 'not yet'}"
        stages.setdefault(stage, []).append(f'<div style="{BOX.format(colour)}">{text}</div>')
    heads = "".join(f'<th style="text-align: left">{html.escape(one)}</th>' for one in stages)
    cells = "".join(
        f'<td style="vertical-align: top">{"".join(one)}</td>' for one in stages.values()
    )
    return f'<table role="status"><tr>{heads}</tr><tr>{cells}</tr></table>'


def _table(execution: dict, done: list[dict]):
    import pandas as pd

    rows = []
    for one in reversed(done):
        result = one.get("output", {}).get("executionResult", {})
        said = result.get("errorDetails", {}).get("message", "")
        begin = (one["startTime"] - execution["startTime"]).total_seconds()
        taken = (one["lastUpdateTime"] - one["startTime"]).total_seconds()
        row = (one["stageName"], one["actionName"], one["status"], round(begin, 1), round(taken, 1))
        rows.append((*row, said or result.get("externalExecutionSummary", "").strip()))
    columns = ["stage", "action", "status", "begin", "seconds", "said"]
    return pd.DataFrame(rows, columns=columns).set_index(["stage", "action"])
