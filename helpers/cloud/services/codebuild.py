"""CodeBuild: a project whose source and artifacts a pipeline handles needs no place for them."""

from __future__ import annotations

from collections.abc import Callable

from moto.codebuild import responses


def _without_place(check: Callable[[dict], None]) -> Callable[[dict], None]:
    """Let a check of moto's pass what has no location on AWS either."""

    def relaxed(part: dict) -> None:
        elsewhere = part["type"] in ("CODEPIPELINE", "NO_SOURCE")
        check({**part, "location": "-"} if elsewhere else part)

    return relaxed


for _name in ("_validate_required_params_source", "_validate_required_params_artifacts"):
    setattr(responses, _name, _without_place(getattr(responses, _name)))
