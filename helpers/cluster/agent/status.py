"""What a node reports of pods and containers, in the API's form and with the kubelet's words."""

from __future__ import annotations

from helpers.cluster.agent.events import now
from helpers.cluster.agent.runtime import State


def of_pod(worker) -> dict:
    """Return the status of a pod, given its worker."""
    phase, address = _phase(worker), worker.address
    host = worker.node.settings.address
    status = {"phase": phase, "hostIP": host, "startTime": worker.begun, **worker.failure}
    status["conditions"] = _conditions(worker, phase)
    if address:
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
    if worker.init:
        status["initContainerStatuses"] = [of_container(one) for one in worker.init]
    if worker.containers:
        status["containerStatuses"] = [of_container(one) for one in worker.containers]
    return status


def of_container(one) -> dict:
    """Return the status of a container."""
    kind = one.runtime.kind
    found = {"name": one.name, "image": one.spec["image"], "imageID": "", "lastState": {}}
    found |= {"ready": one.ready, "restartCount": max(one.attempt, 0)}
    if not one.init:
        found["started"] = one.started
    if one.id:
        found["containerID"] = f"{kind}://{one.id}"
        found["imageID"] = f"{kind}://{one.image_id}"
    if one.last:
        found["lastState"] = _terminated(one, *one.last)
    if one.running:
        found["state"] = {"running": {"startedAt": one.state.started}}
    elif one.waiting or not one.state:
        begun = "PodInitializing" if one.worker.init else "ContainerCreating"
        reason, message = one.waiting or (begun, "")
        said = {"message": message} if message else {}
        found["state"] = {"waiting": {"reason": reason, **said}}
        if one.state:
            found["lastState"] = _terminated(one, one.id, one.state)
    else:
        found["state"] = _terminated(one, one.id, one.state)
    return found


def _terminated(one, container: str, state: State) -> dict:
    reason = "Error" if state.exit_code else "Completed"
    if state.oom:
        reason = "OOMKilled"
    elif state.message:
        reason = "ContainerCannotRun"
    found = {"exitCode": state.exit_code, "reason": reason}
    found["containerID"] = f"{one.runtime.kind}://{container}"
    found |= {"startedAt": state.started or None, "finishedAt": state.finished or None}
    if message := state.message or one.said.get(container, ""):
        found["message"] = message
    return {"terminated": found}


def _phase(worker) -> str:
    if worker.failure:
        return "Failed"
    if worker.finished:
        return "Succeeded" if all(one.succeeded for one in worker.all()) else "Failed"
    return "Running" if all(one.state for one in worker.containers) else "Pending"


def _conditions(worker, phase: str) -> list[dict]:
    ended = phase in ("Succeeded", "Failed")
    begun = any(one.state for one in worker.containers)
    waiting = [] if begun else [one.name for one in worker.init if not one.succeeded]
    unready = [one.name for one in worker.containers if not one.ready]
    found = [
        _condition("Initialized", "ContainersNotInitialized", "incomplete", waiting, False),
        _condition("Ready", "ContainersNotReady", "unready", unready, ended),
        _condition("ContainersReady", "ContainersNotReady", "unready", unready, ended),
    ]
    for one in found:
        old = worker.conditions.get(one["type"], {})
        same = old.get("status") == one["status"]
        one["lastTransitionTime"] = old["lastTransitionTime"] if same else now()
        worker.conditions[one["type"]] = one
    return found


def _condition(kind: str, reason: str, word: str, missing: list[str], ended: bool) -> dict:
    found = {"type": kind, "status": "False" if missing or ended else "True"}
    found |= {"reason": None, "message": None}
    if ended:
        found["reason"] = "PodCompleted"
    elif missing:
        text = f"containers with {word} status: [{' '.join(missing)}]"
        found |= {"reason": reason, "message": text}
    return found
