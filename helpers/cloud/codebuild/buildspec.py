"""Buildspecs: read and checked before anything runs, with the errors that CodeBuild has."""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

PHASES = ("install", "pre_build", "build", "post_build")
KNOWN = {"version", "run-as", "env", "proxy", "batch", "phases", "reports", "artifacts", "cache"}
RUNTIMES = ("python", "docker")
# What is accepted without effect, with the line that the log gets.
NOTED = {
    "cache": "a cache is not kept: every build begins without one",
    "reports": "reports are not made; what the commands print is in this log",
    "proxy": "there is no proxy to be set",
    "batch": "batch builds are not here: this is one build",
    "run-as": "all commands run as root",
}


class Invalid(Exception):
    """A buildspec that CodeBuild refuses; the message is that of the phase context."""


@dataclass
class Phase:
    """What one phase does: its commands, those that run in any case, and what a failure means."""

    commands: list[str] = field(default_factory=list)
    finally_: list[str] = field(default_factory=list)
    on_failure: str = ""


@dataclass
class Buildspec:
    """A buildspec that was checked.

    Attributes:
        shared: whether all commands run in one shell (version 0.2).
        shell: which one.
        variables, parameters, secrets: names, with values or with where these are.
        exported: names of the variables that are shown with the build.
        phases: what the phases do that it has.
        artifacts: the primary ones (key ``""``) and the secondary ones, by name.
        notes: lines for the log about what has no effect here.
    """

    shared: bool
    shell: str
    variables: dict[str, str]
    parameters: dict[str, str]
    secrets: dict[str, str]
    exported: list[str]
    phases: dict[str, Phase]
    artifacts: dict[str, dict]
    notes: list[str]


def parse(text: str) -> Buildspec:
    """Read a buildspec.

    Raises:
        Invalid: it is not one; the message says what is wrong, and in which line if it is no YAML.
    """
    try:
        spec = yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise Invalid(f"yaml: {where}{getattr(problem, 'problem', None) or problem}") from None
    except (RecursionError, ValueError) as problem:
        raise Invalid(f"yaml: {problem}") from None
    spec = _mapping(spec, "the buildspec")
    version = spec.get("version")
    if version == "0.1" and "environment_variables" in spec:  # what 0.2 calls env/variables
        own = _mapping(spec.pop("environment_variables"), "environment_variables")
        spec["env"] = {"variables": own.get("plaintext")}
    for name in spec:
        if name not in KNOWN:
            raise Invalid(f"unknown block {name}")
    if version not in ("0.1", "0.2"):
        raise Invalid(f"invalid buildspec version {version or '(none)'}: it must be 0.1 or 0.2")
    env = _mapping(spec.get("env"), "env")
    shell = str(env.get("shell") or "sh")
    if shell not in ("sh", "bash", "/bin/sh", "/bin/bash"):
        raise Invalid(f"invalid shell {shell}: only sh and bash are supported")
    given = _mapping(spec.get("phases"), "phases")
    notes = [f"{name}: {why}" for name, why in NOTED.items() if name in spec]
    if "git-credential-helper" in env:
        notes.append("git-credential-helper: git has no credentials of the role here")
    phases = {name: _phase(name, one, notes) for name, one in given.items()}
    if not any(one.commands for one in phases.values()):
        raise Invalid("at least one phase with at least one command is required in the buildspec")
    return Buildspec(
        version == "0.2",
        shell,
        _texts(env.get("variables"), "env/variables"),
        _texts(env.get("parameter-store"), "env/parameter-store"),
        _texts(env.get("secrets-manager"), "env/secrets-manager"),
        _list(env.get("exported-variables"), "env/exported-variables"),
        phases,
        _artifacts(spec.get("artifacts")),
        notes,
    )


def _phase(name: str, given: object, notes: list[str]) -> Phase:
    if name not in PHASES:
        raise Invalid(f"unknown phase {name}: there are {', '.join(PHASES)}")
    given = _mapping(given, f"phase {name}")
    for runtime, version in _mapping(given.get("runtime-versions"), "runtime-versions").items():
        there = "not chosen; the image's is used" if runtime in RUNTIMES else "not in this image"
        notes.append(f"runtime-versions: {runtime} {version} is {there}")
    if "run-as" in given:
        notes.append(f"{name}: {NOTED['run-as']}")
    failure = str(given.get("on-failure") or "")
    if failure.startswith("RETRY"):
        notes.append(f"{name}: on-failure {failure} is not followed: a failed build is not retried")
    elif failure not in ("", "ABORT", "CONTINUE"):
        raise Invalid(f"invalid on-failure {failure} in phase {name}")
    commands = _list(given.get("commands"), f"commands in phase {name}")
    return Phase(commands, _list(given.get("finally"), f"finally in phase {name}"), failure)


def _artifacts(given: object) -> dict[str, dict]:
    primary = dict(_mapping(given, "artifacts"))
    secondary = _mapping(primary.pop("secondary-artifacts", None), "secondary-artifacts")
    found = {"": primary} if primary else {}
    found |= {name: dict(_mapping(one, f"artifacts {name}")) for name, one in secondary.items()}
    for one in found.values():
        for part in ("files", "exclude-paths"):
            one[part] = _list(one.get(part), part)
    return {name: one for name, one in found.items() if one["files"]}


def _mapping(value: object, what: str) -> dict:
    if value in (None, ""):
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"{what} must be a mapping of names to values")
    if unhashed := [name for name in value if not isinstance(name, str)]:
        raise Invalid(f"{what} has a name that is no text: {unhashed[0]}")
    return value


def _texts(value: object, what: str) -> dict[str, str]:
    found = _mapping(value, what)
    for name, one in found.items():
        if not isinstance(one, str):
            raise Invalid(f"{what}: the value of {name} must be text")
        if not name.isidentifier() or not name.isascii():
            raise Invalid(f"{what}: {name} cannot be the name of a variable")
    return found


def _list(value: object, what: str) -> list[str]:
    if value in (None, ""):
        return []
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list):
        raise Invalid(f"{what} must be a list of texts")
    for number, one in enumerate(values):
        if not isinstance(one, str):
            text = f"Expected {what}[{number}] to be of string type: found subkeys instead"
            raise Invalid(f"{text} (a colon followed by a space makes them: quote the whole text)")
    return values
