"""Artifacts: which files of a build they are, and how they get into a bucket."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile

from helpers.cloud.codebuild.container import Files


def choose(files: Files, wanted: dict, base: str) -> Files:
    """Return the files that a block of the buildspec means, by the names that they are to have.

    Args:
        files: all files below the source folder.
        wanted: the block: ``files``, ``exclude-paths``, ``discard-paths``.
        base: the base directory, which may be a pattern.
    """
    base = re.sub("^(./)+", "", base).strip("/")
    below = re.compile(f"{_pattern(base)}/" if base not in ("", ".") else "")
    found: Files = {}
    for path, content in files.items():
        if not (start := below.match(path)):
            continue
        name = path[start.end() :]
        if _any(wanted["files"], name) and not _any(wanted["exclude-paths"], name):
            flat = wanted.get("discard-paths") in ("yes", "true")
            found[name.rpartition("/")[2] if flat else name] = content
    return found


def pack(files: Files) -> bytes:
    """Return files as a ZIP."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, (content, mode) in sorted(files.items()):
            member = zipfile.ZipInfo(path)
            member.external_attr, member.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(member, content)
    return body.getvalue()


def place(facts: dict, settings: dict, name: str) -> tuple[str, str]:
    """Return the bucket and the key (or the keys' beginning) that a project wants artifacts at."""
    build = facts["id"].split(":")[1] if settings.get("namespaceType") == "BUILD_ID" else ""
    override = settings.get("overrideArtifactName") and name
    last = override or settings.get("name") or facts["projectName"]
    parts = [(settings.get("path") or "").strip("/"), build, last.strip("/")]
    return settings["location"], "/".join(part for part in parts if part)


def sums(content: bytes) -> dict[str, str]:
    """Return the checksums that a build shows of its artifacts."""
    return {
        "sha256sum": hashlib.sha256(content).hexdigest(),
        "md5sum": hashlib.md5(content, usedforsecurity=False).hexdigest(),
    }


def _any(patterns: list[str], name: str) -> bool:
    return any(re.fullmatch(_pattern(re.sub("^(./)+", "", one)), name) for one in patterns)


def _pattern(glob: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(known.get(part) or re.escape(part) for part in parts)
