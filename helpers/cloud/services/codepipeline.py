"""CodePipeline: pipelines that run, with the permissions of their roles.

``helpers.cloud.codepipeline`` has what they consist of; here are the operations. A source that is
polled is looked at every two seconds. Not here: webhooks, custom actions, jobs of third parties,
conditions of stages, triggers of connections, several regions.
"""

from __future__ import annotations

import functools
import threading
import time
from types import SimpleNamespace

from botocore.model import Shape
from moto.codepipeline import urls
from moto.codepipeline.models import codepipeline_backends
from moto.core.base_backend import BaseBackend
from moto.core.utils import get_service_model

from helpers.cloud import operations
from helpers.cloud.calls import Refusal
from helpers.cloud.codepipeline import sources, structure
from helpers.cloud.codepipeline.execution import Pipeline
from helpers.cloud.codepipeline.operations import Operations, page
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import sts
from helpers.cloud.stacks.api import Caller

POLL_SECONDS = 2
EYES_SECONDS = 1800  # that a role's keys are used for looking


class Response(operations.Response):
    """Answers calls."""

    service, missing = "codepipeline", {"": "webhooks, custom actions and conditions"}

    def answer(self, operation: str, asked: dict) -> dict:
        """Have the backend answer, if AWS knows all values that are asked for."""
        _check(self.params, get_service_model(self.service).operation_model(operation).input_shape)
        return super().answer(operation, asked)


def _check(value, shape: Shape, where: str = "") -> None:
    """Refuse a value that is none of those that the API's model lists."""
    if shape.type_name == "structure":
        for name in shape.members.keys() & value.keys():
            _check(value[name], shape.members[name], f"{where}.{name}".lstrip("."))
    elif shape.type_name == "list":
        for number, one in enumerate(value, 1):
            _check(one, shape.member, f"{where}.{number}.member")
    elif (known := getattr(shape, "enum", None)) and value not in known:
        text = (
            f"1 validation error detected: Value '{value}' at '{where}' failed to satisfy "
            f"constraint: Member must satisfy enum value set: [{', '.join(known)}]"
        )
        raise Refusal("ValidationException", text)


class Backend(Operations, BaseBackend):
    """The pipelines of a region. A method is an operation: it takes and returns what AWS does."""

    _url_module = SimpleNamespace(url_bases=urls.url_bases, url_paths={"{0}/$": Response.dispatch})

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.pipelines: dict[str, Pipeline] = {}
        threading.Thread(target=self._poll, daemon=True).start()

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
        return page("pipelines", found, asked)

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

    def find(self, name: str) -> Pipeline:
        """Return a pipeline, if there is one of this name."""
        if name not in self.pipelines:
            text = f"Account '{ACCOUNT}' does not have a pipeline with name '{name}'"
            raise Refusal("PipelineNotFoundException", text)
        return self.pipelines[name]

    def _checked(self, facts: dict) -> dict:
        sts.assume(facts["roleArn"], "codepipeline")
        return structure.checked(facts, self.region_name)

    def _tagged(self, arn: str) -> Pipeline:
        for one in self.pipelines.values():
            if one.arn == arn:
                return one
        name = arn.rpartition(":")[2]
        text = f"The account with id '{ACCOUNT}' does not include a pipeline with the name '{name}'"
        raise Refusal("ResourceNotFoundException", text)

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
        call = _eyes(role, pipeline.region, int(time.monotonic() // EYES_SECONDS))
        now = sources.REVISIONS[action["actionTypeId"]["provider"]](settings, call)
    except Exception:  # not there, or not allowed: the next execution is going to say so
        return
    with pipeline.changed:
        if before == pipeline.seen.get(name) != now and not _sourcing(pipeline):
            pipeline.seen[name] = now
            pipeline.start("PollForSourceChanges", name)


@functools.lru_cache(64)
def _eyes(role: str, region: str, when: int) -> Caller:
    """Return the API in the name of a role, with keys that serve for a while."""
    return Caller(*sts.assume(role, "codepipeline"), region)


def _sourcing(pipeline: Pipeline) -> bool:
    """Say whether an execution is about to look at the sources, or does so."""
    first = pipeline.facts["stages"][0]["name"]
    running = [one for one in pipeline.executions.values() if one.status == "InProgress"]
    return any(one.stages.get(first, "InProgress") == "InProgress" for one in running)


codepipeline_backends.backend = Backend
