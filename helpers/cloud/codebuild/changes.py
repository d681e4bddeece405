"""The events of a build, as EventBridge gets them."""

from __future__ import annotations

import json

from helpers.cloud.services import events


def state(region: str, facts: dict) -> None:
    """Tell that a build has begun, or how it has ended."""
    now = {"current-phase": facts["currentPhase"], "current-phase-context": "[]"}
    _emit(region, facts, "State", {"build-status": facts["buildStatus"]} | now)


def phase(region: str, facts: dict, entry: dict) -> None:
    """Tell how a phase of a build has ended."""
    (context,) = entry["contexts"]
    told = {
        "phase": entry["phaseType"],
        "phase-status": entry["phaseStatus"],
        "phase-duration-seconds": entry["durationInSeconds"],
        "phase-context": f"[{context['statusCode']}: {context['message']}]",
    }
    _emit(region, facts, "Phase", {f"completed-{name}": value for name, value in told.items()})


def _emit(region: str, facts: dict, kind: str, detail: dict) -> None:
    logs = facts["logs"]
    more = {
        "initiator": facts["initiator"],
        "build-number": facts["buildNumber"],
        "build-complete": facts["buildComplete"],
        "timeout-in-minutes": facts["timeoutInMinutes"],
        "logs": {"group-name": logs.get("groupName"), "stream-name": logs.get("streamName")},
        "phases": json.loads(json.dumps(facts["phases"], default=str)),
    }
    detail |= {"project-name": facts["projectName"], "build-id": facts["arn"], "version": "1"}
    detail |= {"additional-information": more}
    kind = f"CodeBuild Build {kind} Change"
    events.emit(region, "aws.codebuild", kind, [facts["arn"]], detail)
