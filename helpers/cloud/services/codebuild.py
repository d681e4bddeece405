"""CodeBuild: builds really run, each in a container, as the role of its project.

``helpers.cloud.codebuild`` has what a build consists of; here are the operations. Not here: batch
builds, fleets, reports, webhooks, and sources outside of this cloud.
"""

from __future__ import annotations

import re
import uuid
from types import SimpleNamespace

from moto.codebuild import urls
from moto.codebuild.models import codebuild_backends
from moto.core.base_backend import BaseBackend

from helpers.cloud import operations
from helpers.cloud.calls import Refusal
from helpers.cloud.codebuild import projects
from helpers.cloud.codebuild.build import Build
from helpers.cloud.environment import ACCOUNT

Place = tuple[str, str]  # bucket and key


class Response(operations.Response):
    """Answers calls."""

    service, missing = "codebuild", {"": "builds of projects are all that there is"}


class Backend(BaseBackend):
    """Projects and builds of a region. A method is an operation: it takes and returns AWS's."""

    _url_module = SimpleNamespace(url_bases=urls.url_bases, url_paths={"{0}/$": Response.dispatch})

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.projects: dict[str, dict] = {}
        self.builds: dict[str, Build] = {}
        self.asked: dict[str, dict] = {}  # how each build was started
        self.numbers: dict[str, int] = {}

    def create_project(self, asked: dict) -> dict:
        """Make a project."""
        project = projects.new(asked, self.region_name)
        if self.projects.setdefault(project["name"], project) is not project:
            raise Refusal(
                "ResourceAlreadyExistsException", f"Project already exists: {project['arn']}"
            )
        return {"project": project}

    def update_project(self, asked: dict) -> dict:
        """Change what is given of a project."""
        before = self._project(asked["name"])
        project = projects.new(before | asked, self.region_name)
        project["created"] = before["created"]
        self.projects[project["name"]] = project
        return {"project": project}

    def delete_project(self, asked: dict) -> dict:
        """Forget a project and its builds; what is not there is no error."""
        name = projects.short(asked["name"])
        self.projects.pop(name, None)
        gone = [one for one, build in self.builds.items() if build.facts["projectName"] == name]
        self.batch_delete_builds({"ids": gone})
        return {}

    def batch_get_projects(self, asked: dict) -> dict:
        """Return projects."""
        found = {name: self.projects.get(projects.short(name)) for name in asked["names"]}
        missing = [name for name, one in found.items() if not one]
        return {"projects": [one for one in found.values() if one], "projectsNotFound": missing}

    def list_projects(self, asked: dict) -> dict:
        """Return the names of all projects."""
        return {"projects": projects.ordered(sorted(self.projects), asked, "ASCENDING")}

    def start_build(self, asked: dict) -> dict:
        """Start a build of a project."""
        project = self._project(asked["projectName"])
        who = re.sub("^(user|assumed-role)/", "", asked["caller"].split(":")[-1])
        facts = projects.build(project, asked | {"initiator": who})
        if facts["source"]["type"] == "CODEPIPELINE":
            raise projects.invalid("A build with source type CODEPIPELINE is started by a pipeline")
        given, targets = [facts["source"], *facts["secondarySources"]], facts["targets"]
        return {"build": dict(self.begin(facts, asked, given, targets).facts)}

    def retry_build(self, asked: dict) -> dict:
        """Start a build in the way in which another one was started."""
        found = self._build(asked["id"])
        if not found.done.is_set():
            raise projects.invalid("Build is still in progress and cannot be retried")
        again = self.asked[found.facts["id"]]
        if "given" in again:
            raise projects.invalid("A build that a pipeline has started is retried by the pipeline")
        return self.start_build(again | {"caller": asked["caller"]})

    def begin(self, facts: dict, asked: dict, given: list[dict], targets: list[dict]) -> Build:
        """Start a build of a project, and list it."""
        name = facts["projectName"]
        targets = [one for one in targets if one["type"] == "S3"]
        number = self.numbers[name] = self.numbers.get(name, 0) + 1
        build = Build(self.region_name, facts | {"buildNumber": number}, given, targets)
        self.builds[facts["id"]], self.asked[facts["id"]] = build, asked
        return build

    def stop_build(self, asked: dict) -> dict:
        """End a build soon."""
        found = self._build(asked["id"])
        found.stop()
        return {"build": dict(found.facts)}

    def batch_get_builds(self, asked: dict) -> dict:
        """Return builds."""
        found = {one: self.builds.get(projects.identity(one)) for one in asked["ids"]}
        missing = [one for one, build in found.items() if not build]
        builds = [dict(build.facts) for build in found.values() if build]
        return {"builds": builds, "buildsNotFound": missing}

    def batch_delete_builds(self, asked: dict) -> dict:
        """Forget builds; those that run are stopped."""
        deleted, not_deleted = [], []
        for one in asked["ids"]:
            build = self.builds.pop(projects.identity(one), None)
            if build:
                build.stop()
                deleted.append(build.facts["arn"])
            else:
                not_deleted.append({"id": one, "statusCode": "BUILD_NOT_FOUND"})
        return {"buildsDeleted": deleted, "buildsNotDeleted": not_deleted}

    def list_builds(self, asked: dict) -> dict:
        """Return the ids of all builds, the newest first."""
        return {"ids": projects.ordered(reversed(self.builds), asked, "DESCENDING")}

    def list_builds_for_project(self, asked: dict) -> dict:
        """Return the ids of a project's builds, the newest first."""
        name = self._project(asked["projectName"])["name"]
        ids = [one for one in reversed(self.builds) if one.split(":")[0] == name]
        return {"ids": projects.ordered(ids, asked, "DESCENDING")}

    def list_curated_environment_images(self, _: dict) -> dict:
        """Return the names that stand for the one image for builds."""
        return {"platforms": projects.CURATED}

    def _project(self, name: str) -> dict:
        found = self.projects.get(projects.short(name))
        if not found:
            arn = f"arn:aws:codebuild:{self.region_name}:{ACCOUNT}:project/{projects.short(name)}"
            raise Refusal("ResourceNotFoundException", f"Project cannot be found: {arn}")
        return found

    def _build(self, one: str) -> Build:
        if ":" not in one:
            raise projects.invalid("Invalid build ID provided")
        if projects.identity(one) not in self.builds:
            raise Refusal("ResourceNotFoundException", f"Build {one} does not exist")
        return self.builds[projects.identity(one)]


codebuild_backends.backend = Backend


def start(
    region: str,
    project: str,
    *,
    inputs: dict[str, Place],
    primary: str,
    outputs: dict[str, Place],
    variables: list[dict],
    initiator: str,
    version: str = "",
) -> Build:
    """Start a build of a project for a pipeline.

    Args:
        region: where the project is.
        project: its name.
        inputs: the artifacts that go in: the ZIP of each in S3.
        primary: the one whose files are the source; the folder of each other one is in
            ``CODEBUILD_SRC_DIR_NAME``.
        outputs: the artifacts that come out, and where the build's role uploads the ZIP of each;
            the first are the primary ones, unless the buildspec has secondary ones of its name.
        variables: ``name``, ``value`` and ``type`` of each.
        initiator: who asks: ``codepipeline/NAME``.
        version: what the source's version is called.

    Raises:
        Refusal: there is no such project, or CodeBuild may not be its role.
    """
    backend = codebuild_backends[ACCOUNT][region]
    asked = {
        "environmentVariablesOverride": variables,
        "initiator": initiator,
        "sourceVersion": version,
    }
    facts = projects.build(backend._project(project), asked) | {"resolvedSourceVersion": version}
    given = _sources(inputs, primary)
    targets = [
        {"type": "S3", "location": bucket, "name": key, "packaging": "ZIP"}
        | {"artifactIdentifier": name, "primary": not number}
        for number, (name, (bucket, key)) in enumerate(outputs.items())
    ]
    return backend.begin(facts, asked | {"given": given}, given, targets)


def start_hidden(
    region: str, role_arn: str, buildspec: str, inputs: dict[str, Place], pipeline: str
) -> Build:
    """Start a build of no project, in privileged mode.

    Args:
        region: where.
        role_arn: the role that it runs as: the pipeline's.
        buildspec: its text.
        inputs: as for ``start``; the first is the source.
        pipeline: the name of the pipeline that asks.

    Raises:
        Refusal: CodePipeline may not be the role.
    """
    group = {"status": "ENABLED", "groupName": f"/aws/codepipeline/{pipeline}"}
    project = projects.new(
        {
            "name": f"{pipeline}-{uuid.uuid4().hex[:8]}",
            "logsConfig": {"cloudWatchLogs": group},
            "serviceRole": role_arn,
            "source": {"type": "CODEPIPELINE", "buildspec": buildspec},
            "artifacts": {"type": "CODEPIPELINE"},
            "environment": projects.SMALL | {"privilegedMode": True},
        },
        region,
        "codepipeline",
    )
    facts = projects.build(project, {"initiator": f"codepipeline/{pipeline}"}) | {"buildNumber": 1}
    return Build(region, facts, _sources(inputs, next(iter(inputs))), [], "codepipeline")


def _sources(inputs: dict[str, Place], primary: str) -> list[dict]:
    """Return a pipeline's artifacts as the sources of a project, the primary one first."""
    found = [
        {"type": "S3", "location": "/".join(place)}
        | ({} if name == primary else {"sourceIdentifier": name})
        for name, place in inputs.items()
    ]
    return sorted(found, key=len) or [{"type": "NO_SOURCE"}]
