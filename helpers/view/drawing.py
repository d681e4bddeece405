"""What the page draws: sections with boxes, each with a name, a state in a word, and its kind."""

from __future__ import annotations

import time

from helpers import machine
from helpers.view import faults
from helpers.view.look import Orchestrator, Seen

GOOD, BUSY, BAD, OFF = "good", "busy", "bad", "off"
WORDS = {  # how AWS ends or begins the words for its states
    GOOD: ("running", "complete", "succeeded", "active", "ready", "healthy"),
    BUSY: ("progress", "pending", "creating", "created", "updating", "deleting", "stopping",
           "shutting-down", "restarting", "waits for approval"),
    BAD: ("failed", "fault", "timed_out", "dead", "degraded", "unhealthy"),
}  # fmt: skip


def kind(word: str) -> str:
    """Return what a state is: good, busy, bad, or off."""
    low = word.lower()
    if "rollback" in low and low.endswith("complete"):
        return BAD
    return next((one for one, ends in WORDS.items() if low.endswith(ends)), OFF)


def page(seen: Seen) -> dict:
    """Return what is drawn, in the form that the page has for it (JSON)."""
    sections = [
        ("Virtual machines", _machines(seen)),
        ("Containers", _containers(seen)),
        ("Images", [_box(tag, "", OFF) for tag in seen.images]),
        ("AWS: instances", [_instance(one) for one in seen.aws.get("instances", [])]),
        ("AWS: buckets", [_bucket(one) for one in seen.aws.get("buckets", [])]),
        ("AWS: stacks", [_stack(one) for one in seen.aws.get("stacks", [])]),
        ("AWS: builds", [_build(one) for one in seen.aws.get("builds", [])]),
        ("AWS: pipelines", [_pipeline(one) for one in seen.aws.get("pipelines", [])]),
        ("AWS: EKS clusters", [_eks(one) for one in seen.aws.get("clusters", [])]),
        *[(f"Kubernetes: {one.found.name}", _cluster(one)) for one in seen.clusters],
        ("Processes of the course", _processes(seen)),
    ]
    there = [{"title": title, "boxes": boxes} for title, boxes in sections if boxes]
    total = machine.facts()["memory_mb"]
    memory = f"{round(seen.memory_mb, -1)} of {total} MB" if there else ""
    buttons = [
        {"name": one.name, "what": one.what, "where": one.where} for one in faults.possible(seen)
    ]
    return {"memory": memory, "sections": there, "faults": buttons}


def _box(name: str, word: str, how: str = "", more: str = "", inside=(), row=False) -> dict:
    """Return a box; with others inside, below each other or in a row."""
    box = {"name": name, "word": word, "kind": how or kind(word), "more": more}
    return box | {"inside": list(inside), "row": row}


def _machines(seen: Seen) -> list[dict]:
    instances = {one["id"] for one in seen.aws.get("instances", [])}
    found = []
    for entry in seen.entries:
        settings = entry.facts.get("vm")
        if settings and settings["name"] not in instances:
            what = "holds the Docker Engine, " if settings["name"] == "docker" else ""
            what += f"{settings['memory']} MB, {settings['accelerator']}, since {_clock(entry)}"
            found.append(_box(settings["name"], "running", GOOD, what))
    return found


def _containers(seen: Seen) -> list[dict]:
    found = []
    for one in seen.containers:
        if faults.POD in one["Labels"]:
            continue
        word, status = one["State"], one["Status"]
        how = BUSY if "starting)" in status else BAD if "unhealthy" in status else kind(word)
        if word == "exited":
            word = status.partition(")")[0] + ")"  # Exited (137)
            how = OFF if "(0)" in word else BAD
        elif "(" in status:  # (healthy)
            word += ", " + status[status.index("(") :].strip("()")
        name, build = one["Names"][0].lstrip("/"), one["Labels"].get("lab.build")
        more = f"of build {build}" if build else one["Image"]
        if cluster := one["Labels"].get("lab.cluster"):
            name, more = f"network of {cluster}", name
        found.append(_box(name, word, how, more))
    return sorted(found, key=lambda box: box["name"])


def _instance(one: dict) -> dict:
    more = ", ".join(filter(None, (one["id"] if one["name"] else "", one["type"], one["address"])))
    return _box(one["name"] or one["id"], one["status"], more=more)


def _bucket(one: dict) -> dict:
    return _box(one["name"], f"{one['objects']} objects", OFF)


def _stack(one: dict) -> dict:
    parts = [_box(r["name"], r["status"], more=r["type"]) for r in one["resources"]]
    return _box(one["name"], one["status"], inside=parts)


def _build(one: dict) -> dict:
    parts = [_box(phase["name"], phase["status"]) for phase in one["phases"]]
    return _box(one["id"][:50], one["status"], inside=parts, row=True)


def _pipeline(one: dict) -> dict:
    stages = []
    for stage in one["stages"]:
        actions = []
        for action in stage["actionStates"]:
            latest = action.get("latestExecution", {})
            word = "waits for approval" if "token" in latest else latest.get("status", "not yet")
            actions.append(_box(action["actionName"], word))
        closed = not stage["inboundTransitionState"]["enabled"]
        word = stage.get("latestExecution", {}).get("status", "not yet")
        stages.append(_box(stage["stageName"], "closed, " * closed + word, inside=actions))
    return _box(one["name"], "", OFF, inside=stages, row=True)


def _eks(one: dict) -> dict:
    groups = [_box(group["name"], group["status"], more="node group") for group in one["groups"]]
    return _box(one["name"], one["status"], inside=groups)


def _cluster(one: Orchestrator) -> list[dict]:
    found = []
    for node in one.nodes:
        name = node["metadata"]["name"]
        word = "Ready" if _condition(node, "Ready") else "NotReady"
        how = GOOD if word == "Ready" else BAD
        word += ", cordoned" if node["spec"].get("unschedulable") else ""
        pods = [_pod(pod) for pod in one.pods if pod["spec"].get("nodeName") == name]
        found.append(_box(name, word, how, inside=pods))
    if homeless := [_pod(pod) for pod in one.pods if not pod["spec"].get("nodeName")]:
        found.append(_box("on no node yet", "Pending", BUSY, inside=homeless))
    return found


def _pod(pod: dict) -> dict:
    """Return a pod with the word that kubectl shows for it."""
    meta, status = pod["metadata"], pod.get("status", {})
    parts = status.get("containerStatuses", [])
    waiting = [part["state"].get(why, {}).get("reason", "")
               for part in parts for why in ("waiting", "terminated")]  # fmt: skip
    word = next(filter(None, waiting), status.get("phase", "Pending"))
    ready = sum(part["ready"] for part in parts)
    how = GOOD if word == "Running" else BAD
    if "deletionTimestamp" in meta:
        word, how = "Terminating", BUSY
    elif word in ("Succeeded", "Completed"):
        how = OFF
    elif word in ("Pending", "ContainerCreating", "PodInitializing") or (
        word == "Running" and not _condition(pod, "Ready")
    ):
        how = BUSY
    restarts = sum(part["restartCount"] for part in parts)
    word += f", {restarts} restart{'s' * (restarts > 1)}" if restarts else ""
    more = f"{ready} of {len(pod['spec']['containers'])} ready"
    space = "" if meta["namespace"] == "default" else f"{meta['namespace']}/"
    return _box(space + meta["name"], word, how, more)


def _condition(thing: dict, name: str) -> bool:
    conditions = thing.get("status", {}).get("conditions", [])
    return any((one["type"], one["status"]) == (name, "True") for one in conditions)


def _processes(seen: Seen) -> list[dict]:
    return [
        _box(one.name, "running", GOOD, f"process {one.pid}, since {_clock(one)}")
        for one in seen.entries
        if "vm" not in one.facts
    ]


def _clock(entry) -> str:
    return time.strftime("%H:%M:%S", time.localtime(entry.since))
