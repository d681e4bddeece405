"""What a pipeline has to look like, and what AWS says if it does not."""

from __future__ import annotations

import re
from functools import partial

from helpers.cloud.calls import Refusal
from helpers.cloud.codepipeline import actions

_structure = partial(Refusal, "InvalidStructureException")  # they take the message
_wrong = partial(Refusal, "InvalidActionDeclarationException")
NAME = r"[A-Za-z0-9.@_-]{1,100}"
STAGE_EXTRAS = ("blockers", "onFailure", "onSuccess", "beforeEntry")
ACTION_EXTRAS = ("commands", "outputVariables")


def checked(facts: dict, region: str) -> dict:
    """Return the declaration of a pipeline with what AWS adds where it says nothing.

    Raises:
        Refusal: AWS would not take it.
        NotImplementedError: the local cloud does not have what it asks for.
    """
    kind, stages = facts.get("pipelineType") or "V1", facts.get("stages", [])
    mode = facts.get("executionMode") or "SUPERSEDED"
    if not re.fullmatch(NAME, facts["name"]):
        raise _structure(f"Pipeline name '{facts['name']}' must match {NAME}")
    if "triggers" in facts or "artifactStores" in facts:
        raise NotImplementedError("pipelines with triggers of connections, or in several regions")
    if facts.get("artifactStore", {}).get("type") != "S3":
        raise _structure("The pipeline must have an artifactStore of the type S3")
    if len(stages) < 2:
        raise _structure(
            f"Pipeline has only {len(stages)} stage(s). There should be a minimum of 2 stages in a "
            "pipeline"
        )
    if kind == "V1" and mode != "SUPERSEDED":
        raise _structure("QUEUED or PARALLEL mode can only be used with V2 pipelines")
    if kind == "V1" and facts.get("variables"):
        raise _structure("Pipeline variable can only be used with V2 pipelines")
    for name in _twice([one["name"] for one in facts.get("variables", ())]):
        text = "Variable names must be unique. The following variable name is already in use"
        raise _structure(f"{text}: {name}")
    for name in _twice([stage["name"] for stage in stages]):
        text = f"Stage name '{name}' is used more than once"
        raise Refusal("InvalidStageDeclarationException", text)
    sources, *others = (
        {one["actionTypeId"]["category"] for one in stage["actions"]} for stage in stages
    )
    if sources - {"Source"}:
        raise _structure("Pipeline should start with a stage that only contains source actions")
    if not set().union(*others) - {"Source"}:
        text = "Pipeline should contain at least 1 action whose category is not Source"
        raise _structure(text)
    if any("Source" in kinds for kinds in others):
        text = "Source actions can only be included in the first stage of the pipeline"
        raise _structure(text)
    spaces = [one["namespace"] for s in stages for one in s["actions"] if one.get("namespace")]
    for name in _twice([*spaces, "codepipeline", "variables"]):
        raise _structure(f"Namespace '{name}' is used more than once in the pipeline, or reserved")
    made: set[str] = set()
    filled = [_stage(stage, kind, region, made) for stage in stages]
    return facts | {"stages": filled, "pipelineType": kind, "executionMode": mode}


def _stage(stage: dict, kind: str, region: str, made: set[str]) -> dict:
    """Check a stage; ``made`` are the artifacts that there are, to which it adds its own."""
    name = stage["name"]
    if found := [extra for extra in STAGE_EXTRAS if stage.get(extra)]:
        raise NotImplementedError(f"stages with {found[0]}")
    if not re.fullmatch(NAME, name) or not stage["actions"]:
        raise Refusal(
            "InvalidStageDeclarationException", f"Stage '{name}' has no valid name, or no actions"
        )
    for again in _twice([one["name"] for one in stage["actions"]]):
        text = f"Action name '{again}' is used more than once in stage '{name}'"
        raise Refusal("InvalidStageDeclarationException", text)
    filled = []
    for one in stage["actions"]:
        one = {"runOrder": 1, "configuration": {}, "inputArtifacts": [], **one}
        filled.append({"outputArtifacts": [], "region": region, **one})
    for order in sorted({one["runOrder"] for one in filled}):
        same = [one for one in filled if one["runOrder"] == order]
        for one in same:
            _action(one, kind, region, made)
        for output in (output["name"] for one in same for output in one["outputArtifacts"]):
            if output in made:
                text = f"Output Artifact Bundle name must be unique within the pipeline: {output}"
                raise _structure(f"{text} has been used more than once.")
            made.add(output)
    return stage | {"actions": filled}


def _action(one: dict, kind: str, region: str, made: set[str]) -> None:
    name, what, given = one["name"], one["actionTypeId"], one["configuration"]
    if found := [extra for extra in ACTION_EXTRAS if one.get(extra)]:
        raise NotImplementedError(f"actions with {found[0]}")
    provider = actions.find(what)
    facts = ", ".join(
        f"{n.title()}: '{what.get(n)}'" for n in "category provider owner version".split()
    )
    if not provider:
        there = ", ".join(sorted({f"{c}/{p}" for c, p in actions.PROVIDERS}))
        where = region.upper().replace("-", "_")
        text = f"ActionType ({facts}) in action '{name}' is not available in region '{where}'"
        raise _wrong(f"{text}: the local cloud has {there}")
    if one["region"] != region:
        raise NotImplementedError("actions in another region than their pipeline's")
    if provider.v2 and kind != "V2":
        raise _wrong(f"{what['provider']} Action can only be used with V2 pipelines.")
    environment = one.get("environmentVariables") or []
    if environment and what["provider"] != "EKS":
        raise NotImplementedError(f"environmentVariables of {what['provider']} actions")
    if any(variable.get("type", "PLAINTEXT") != "PLAINTEXT" for variable in environment):
        raise NotImplementedError("environmentVariables out of Secrets Manager")
    keys = provider.settings.split()
    for key in keys:
        if key.endswith("*") and not given.get(key[:-1]):
            text = f"Action configuration for action '{name}' is missing required configuration"
            raise _wrong(f"{text} '{key[:-1]}'")
    for key in given:
        if key not in keys and f"{key}*" not in keys:
            text = f"Action configuration for action '{name}' contains unknown configuration"
            raise _wrong(f"{text} '{key}'")
    if (
        given.get("BatchEnabled") == "true"
        or given.get("OutputArtifactFormat") == "CODEBUILD_CLONE_REF"
    ):
        raise NotImplementedError("batch builds and full clones: artifacts are ZIP files")
    for which, (least, most) in (("input", provider.inputs), ("output", provider.outputs)):
        count = len(one[f"{which}Artifacts"])
        text = f"Action {name} declares {count} {which} artifacts which is"
        if count < least:
            raise _wrong(f"{text} less than the minimum count ({least})")
        if count > most:
            raise _wrong(f"{text} more than the maximum count ({most})")
    for artifact in (one["name"] for one in one["inputArtifacts"]):
        if artifact not in made:
            text = f"Input Artifact Bundle {artifact} in action {name} is not declared as Output"
            raise _wrong(f"{text} Artifact Bundle in any of the preceding actions")
    if len(one["inputArtifacts"]) > 1 and "PrimarySource*" not in keys:
        names = [one["name"] for one in one["inputArtifacts"]]
        if "PrimarySource" in keys and given.get("PrimarySource") not in names:
            raise _wrong(
                f"Action '{name}' has several inputs: PrimarySource must be one of {names}"
            )


def _twice(names: list[str]) -> list[str]:
    return [name for n, name in enumerate(names) if name in names[:n]]
