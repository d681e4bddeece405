"""Artifacts: which files of a build they are, and how they get into a bucket."""

from __future__ import annotations

import hashlib
import re
import stat

from helpers.cloud.archives import Files, pack
from helpers.cloud.codebuild.container import Container
from helpers.cloud.codebuild.errors import Failure
from helpers.cloud.codebuild.logs import Log
from helpers.cloud.stacks.api import Caller


def choose(files: Files, wanted: dict, base: str) -> Files:
    """Return the files that a block of the buildspec means, by the names that they are to have.

    Args:
        files: all files and folders below the source folder.
        wanted: the block: ``files``, ``exclude-paths``, ``discard-paths``.
        base: the base directory, which may be a pattern.

    Raises:
        Failure: there is no such directory.
    """
    folder, below = _plain(base), ""
    if folder not in ("", "."):
        there = (path for path, (_, mode) in files.items() if stat.S_ISDIR(mode))
        if not any(re.fullmatch(_pattern(folder), path) for path in there):
            text = f"no matching base directory path found for {base}"
            raise Failure("CLIENT_ERROR", text)
        below = f"{_pattern(folder)}/"
    found: Files = {}
    for path, content in files.items():
        start = re.match(below, path)
        if not start or stat.S_ISDIR(content[1]):
            continue
        name = path[start.end() :]
        if _any(wanted["files"], name) and not _any(wanted["exclude-paths"], name):
            flat = wanted.get("discard-paths") in ("yes", "true")
            found[name.rpartition("/")[2] if flat else name] = content
    return found


def upload(
    facts: dict,
    target: dict,
    blocks: dict[str, dict],
    files: Files,
    container: Container,
    log: Log,
    call: Caller,
) -> None:
    """Upload the files of one artifact, and note in the build's facts where they are.

    Args:
        facts: the build's.
        target: where they go, as a project has it; a secondary one has an ``artifactIdentifier``.
        blocks: the artifacts of the buildspec, by name.
        files: all files and folders below the source folder.
        container: whose shell knows the variables.
        log: the build's.
        call: calls the cloud as the build's role.

    Raises:
        ClientError: the role may not, or there is no such bucket.
        Failure: nothing matches, or there is no such base directory.
    """
    name = target.get("artifactIdentifier", "")
    block = blocks.get(name) or blocks.get("") if target.get("primary") else blocks.get(name)
    if not block:
        log.say(f"No artifact files specified {name}".strip())
        return
    base = container.ask(block.get("base-directory") or ".")
    log.say(f"Expanding base directory path: {base}")
    if base.startswith("/"):  # that of another source, say
        files, base = container.get(base), "."
    root = container.ask("$CODEBUILD_SRC_DIR/")
    wanted = block | {"files": [container.ask(one).removeprefix(root) for one in block["files"]]}
    for one in wanted["files"]:
        log.say(f"Expanding {one}")
    chosen = choose(files, wanted, base)
    if not chosen:
        raise Failure("CLIENT_ERROR", "no matching artifact paths found")
    log.say(f"Found {len(chosen)} file(s)")
    about = {"location": _key(facts, target, container.ask(block.get("name") or ""))}
    bodies = {f"{about['location']}/{path}": content for path, (content, _) in chosen.items()}
    if target.get("packaging") == "ZIP":
        packed = pack(chosen)
        bodies = {about["location"]: packed}
        about["sha256sum"] = hashlib.sha256(packed).hexdigest()
        about["md5sum"] = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    safe = {} if target.get("encryptionDisabled") else {"ServerSideEncryption": "aws:kms"}
    for key, content in bodies.items():
        where = {"Bucket": target["location"], "Key": key} | safe
        call("s3", "PutObject", where | {"Body": content})
    about["location"] = f"arn:aws:s3:::{target['location']}/{about['location']}"
    if target.get("primary"):
        facts["artifacts"] = about
    else:
        facts["secondaryArtifacts"].append(about | {"artifactIdentifier": name})


def _key(facts: dict, target: dict, name: str) -> str:
    """Return the key that a project wants artifacts at; if not packed, the keys' beginning."""
    build = facts["id"].split(":")[1] if target.get("namespaceType") == "BUILD_ID" else ""
    override = name if target.get("overrideArtifactName") else ""
    last = override or target.get("name") or facts["projectName"]
    parts = [(target.get("path") or "").strip("/"), build, last.strip("/")]
    return "/".join(part for part in parts if part)


def _any(patterns: list[str], name: str) -> bool:
    return any(re.fullmatch(_pattern(_plain(one)), name) for one in patterns)


def _plain(path: str) -> str:
    return re.sub(r"^(\./)+", "", path).rstrip("/")


def _pattern(glob: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(known.get(part) or re.escape(part) for part in parts)
