"""The environment of a build: what the project, the buildspec and CodeBuild itself set."""

from __future__ import annotations

import json
import os
from datetime import UTC

from botocore.exceptions import ClientError

from helpers import containers
from helpers.cloud.codebuild.buildspec import Buildspec
from helpers.cloud.codebuild.errors import Failure, said
from helpers.cloud.ecr import registry
from helpers.cloud.stacks.api import Caller


def given(facts: dict, spec: Buildspec, call: Caller) -> tuple[dict[str, str], list[str]]:
    """Return the variables of buildspec and project, which goes first, and what is secret of them.

    Raises:
        Failure: a parameter or a secret is not there, or the role may not read it.
    """
    kinds = {
        "PLAINTEXT": dict(spec.variables),
        "PARAMETER_STORE": dict(spec.parameters),
        "SECRETS_MANAGER": dict(spec.secrets),
    }
    for one in facts["environment"]["environmentVariables"]:
        for named in kinds.values():
            named.pop(one["name"], None)
        kinds[one.get("type") or "PLAINTEXT"][one["name"]] = one["value"]
    plain, parameters, secrets = kinds.values()
    try:
        found = _parameters(call, parameters)
        found |= {name: _secret(call, where) for name, where in secrets.items()}
    except (ClientError, LookupError, ValueError) as problem:
        text = said(problem) if isinstance(problem, ClientError) else str(problem.args[0])
        raise Failure("Decrypted Variables Error", text) from None
    return plain | found, [value for value in found.values() if value]


def _parameters(call: Caller, wanted: dict[str, str]) -> dict[str, str]:
    values = {}
    names = sorted(set(wanted.values()))
    for begin in range(0, len(names), 10):  # no more in one call
        asked = {"Names": names[begin : begin + 10], "WithDecryption": True}
        answer = call("ssm", "GetParameters", asked)
        if answer.get("InvalidParameters"):
            raise LookupError(f"parameter does not exist: {answer['InvalidParameters'][0]}")
        values |= {one["Name"]: one["Value"] for one in answer["Parameters"]}
    return {name: values[where] for name, where in wanted.items()}


def _secret(call: Caller, where: str) -> str:
    """Return a secret, or one value of it: ``ID:KEY:STAGE:VERSION``, all but the first optional."""
    parts = where.split(":")
    long = 7 if where.startswith("arn:") else 1
    key, stage, version, *_ = [*parts[long:], "", "", ""]
    asked = {"SecretId": ":".join(parts[:long]), "VersionStage": stage, "VersionId": version}
    asked = {name: value for name, value in asked.items() if value}
    text = call("secretsmanager", "GetSecretValue", asked)["SecretString"]
    return str(json.loads(text)[key]) if key else text


def agent(facts: dict, keys: tuple[str, str, str], region: str, folders: dict) -> dict[str, str]:
    """Return the variables that CodeBuild sets, and those that lead AWS clients to this cloud.

    Args:
        facts: the build's.
        keys: its role's.
        region: where it runs.
        folders: where its sources are; the primary one has no name.
    """
    build = {
        "BUILD_ID": facts["id"],
        "BUILD_ARN": facts["arn"],
        "BUILD_NUMBER": facts["buildNumber"],
        "BUILD_IMAGE": facts["environment"]["image"],
        "BUILD_SUCCEEDING": 1,
        "INITIATOR": facts["initiator"],
        "KMS_KEY_ID": facts["encryptionKey"],
        "LOG_PATH": facts["logs"].get("streamName"),
        "RESOLVED_SOURCE_VERSION": facts.get("resolvedSourceVersion"),
        "SOURCE_REPO_URL": facts["source"].get("location"),
        "SOURCE_VERSION": facts.get("sourceVersion"),
        "START_TIME": int(facts["startTime"].replace(tzinfo=UTC).timestamp() * 1000),
    }
    for name, folder in folders.items():
        build[f"SRC_DIR_{name}" if name else "SRC_DIR"] = folder
    own = {f"CODEBUILD_{name}": str(value or "") for name, value in build.items()}
    clients = "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN".split()
    return own | {
        **dict(zip(clients, keys, strict=True)),
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"],
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
        "CI": "true",
        "HOME": "/root",
        "LAB_AWS": "local",
        "LAB_LABEL": containers.label(),
        "LAB_REGISTRY": f"s|{registry.ON_AWS}|{registry.host()}|g",
    }
