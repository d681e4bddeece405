"""What exists in the local cloud at this moment, read at one go by whoever draws it (``view``).

To ask the services one by one, once a second, would keep a processor busy. This looks at the same
records as their answers, changes nothing, and is for those only who know the cloud's secret.
"""

from __future__ import annotations

import hmac
import json
import sys
from collections.abc import Iterator

from moto.backends import get_backend
from werkzeug.wrappers import Request, Response

from helpers.cloud import environment
from helpers.cloud.environment import ACCOUNT

BUILDS = 4  # the newest


def door(environ, start_response):
    """Tell what exists, as JSON (a WSGI application)."""
    secret = (environment.folder() / "secret").read_text()
    if not hmac.compare_digest(Request(environ).headers.get(environment.HEADER, ""), secret):
        return Response(status=403)(environ, start_response)
    found = {
        "instances": list(_instances()),
        "stacks": list(_stacks()),
        "builds": list(_builds())[-BUILDS:],
        "pipelines": list(_pipelines()),
        "clusters": list(_clusters()),
        "buckets": [
            {"name": one.name, "objects": len(one.keys)}
            for here in _regions("s3")
            for one in list(here.buckets.values())
        ],
    }
    return Response(json.dumps(found, default=str), content_type="application/json")(
        environ, start_response
    )


def _regions(package: str) -> list:
    """Return what a service has, by region; nothing of one that was never called."""
    if f"helpers.cloud.services.{package}" not in sys.modules:
        return []
    return list(get_backend(package)[ACCOUNT].values())


def _instances() -> Iterator[dict]:
    for here in _regions("ec2"):
        for one in [one for each in list(here.reservations.values()) for one in each.instances]:
            one.look()
            names = [tag["value"] for tag in one.get_tags() if tag["key"] == "Name"]
            about = {"id": one.id, "type": one.instance_type, "address": one.public_ip or ""}
            yield {"name": "".join(names), "status": one.state, **about}


def _stacks() -> Iterator[dict]:
    for here in _regions("cloudformation"):
        for one in here.alive():
            resources = [
                {"name": part.name, "type": part.type, "status": part.status}
                for part in list(one.resources.values())
            ]
            yield {"name": one.name, "status": one.status, "resources": resources}


def _builds() -> Iterator[dict]:
    for here in _regions("codebuild"):
        for one in list(here.builds.values()):
            phases = [
                {"name": phase["phaseType"], "status": phase.get("phaseStatus", "IN_PROGRESS")}
                for phase in list(one.facts["phases"])
                if phase["phaseType"] != "COMPLETED"
            ]
            status = one.facts["buildStatus"]
            yield {"id": one.facts["id"], "status": status, "phases": phases}


def _pipelines() -> Iterator[dict]:
    from helpers.cloud.codepipeline import state

    for here in _regions("codepipeline"):
        for one in list(here.pipelines.values()):
            yield {"name": one.name, "stages": state.pipeline(one)["stageStates"]}


def _clusters() -> Iterator[dict]:
    for here in _regions("eks"):
        for one in list(here.clusters.values()):
            groups = [
                {"name": name, "status": group.facts["status"]}
                for name, group in list(one.groups.items())
            ]
            yield {"name": one.name, "status": one.facts["status"], "groups": groups}
