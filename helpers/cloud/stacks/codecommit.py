"""How a repository of CodeCommit gets its first files."""

from __future__ import annotations

from helpers.cloud import archives
from helpers.cloud.stacks.api import Caller
from helpers.cloud.stacks.resources import Resource, Type


def repository(p: dict) -> dict:
    """Return a repository, whose code comes later."""
    return {name: value for name, value in p.items() if name != "Code"}


class Repository(Type):
    """A repository, which may begin with what is in a ZIP file."""

    def make(self, call: Caller, one: Resource, started) -> None:
        """Create the repository, and commit what its code names."""
        super().make(call, one, started)
        if not (code := one.properties.get("Code")):
            return
        place = {"VersionId" if n == "ObjectVersion" else n: v for n, v in code["S3"].items()}
        body = call("s3", "GetObject", place)["Body"].read()
        found = archives.unpack(body).items()
        files = [{"filePath": name, "fileContent": content} for name, (content, _) in found]
        commit = {"repositoryName": one.properties["RepositoryName"], "putFiles": files}
        commit |= {"branchName": code.get("BranchName", "main"), "commitMessage": "Initial commit"}
        call("codecommit", "CreateCommit", commit)
