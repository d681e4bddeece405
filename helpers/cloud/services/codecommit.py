"""CodeCommit: repositories of git, and the operations on them (``helpers.cloud.codecommit``).

Not here: pull requests, comments, approvals, triggers (rules of EventBridge do that), merges by
the API, and SSH.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

from moto.codecommit import urls
from moto.codecommit.models import codecommit_backends
from moto.core.base_backend import BaseBackend

from helpers.cloud import calls, operations
from helpers.cloud.codecommit import contents, door
from helpers.cloud.codecommit.errors import error
from helpers.cloud.codecommit.repository import NOTHING, Repository
from helpers.cloud.environment import ACCOUNT, REGION


class Response(operations.Response):
    """Answers calls."""

    service, missing = "codecommit", {"": "pull requests, approvals, triggers, merges by the API"}


class Backend(contents.Operations, BaseBackend):
    """The repositories of a region. A method is an operation, with what AWS's takes and returns."""

    _url_module = SimpleNamespace(
        url_bases=urls.url_bases, url_paths={path: Response.dispatch for path in urls.url_paths}
    )

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.repositories: dict[str, Repository] = {}

    def create_repository(self, asked: dict) -> dict:
        """Make a repository."""
        name, text = asked["repositoryName"], asked.get("repositoryDescription") or ""
        if not re.fullmatch(r"[\w.-]{1,100}", name, re.ASCII) or name.endswith(".git"):
            raise error("InvalidRepositoryName")
        if name in self.repositories:
            raise error("RepositoryNameExists", name)
        made = Repository(self.region_name, name, text, asked.get("tags") or {})
        self.repositories[name] = made
        return {"repositoryMetadata": _described(made)}

    def get_repository(self, asked: dict) -> dict:
        """Return what is known of a repository."""
        return {"repositoryMetadata": _described(self.find(asked))}

    def batch_get_repositories(self, asked: dict) -> dict:
        """Return what is known of several."""
        found = [self.repositories[n] for n in asked["repositoryNames"] if n in self.repositories]
        lost = [name for name in asked["repositoryNames"] if name not in self.repositories]
        described = [_described(one) for one in found]
        return {"repositories": described, "repositoriesNotFound": lost, "errors": []}

    def list_repositories(self, _: dict) -> dict:
        """Return the names and ids of all repositories."""
        found = sorted(self.repositories.items())
        return {"repositories": [{"repositoryName": n, "repositoryId": one.id} for n, one in found]}

    def delete_repository(self, asked: dict) -> dict:
        """Delete a repository, if there is one of this name."""
        found = self.repositories.pop(asked["repositoryName"], None)
        if not found:
            return {}
        found.remove()
        return {"repositoryId": found.id}

    def update_repository_description(self, asked: dict) -> dict:
        """Describe a repository in other words."""
        self.find(asked).description = asked.get("repositoryDescription") or ""
        return {}

    def update_default_branch(self, asked: dict) -> dict:
        """Make another branch the default."""
        found, name = self.find(asked), asked["defaultBranchName"]
        found.tip(name)
        found.git("symbolic-ref", "HEAD", f"refs/heads/{name}")
        return {}

    def list_tags_for_resource(self, asked: dict) -> dict:
        """Return the tags of a repository."""
        name = asked["resourceArn"].rsplit(":", 1)[-1]
        return {"tags": self.find({"repositoryName": name}).tags}

    def create_branch(self, asked: dict) -> dict:
        """Make a branch that ends at a commit."""
        found, name = self.find(asked), asked["branchName"]
        found.check_branch_name(name)
        with found.changing(asked["caller"]):
            if name in found.branches():
                raise error("BranchNameExists", name)
            commit = found.resolve(asked["commitId"])
            found.git("update-ref", f"refs/heads/{name}", commit, NOTHING)
        return {}

    def get_branch(self, asked: dict) -> dict:
        """Return a branch, by default the default one."""
        found = self.find(asked)
        name = asked.get("branchName") or found.default
        return {"branch": {"branchName": name, "commitId": found.tip(name)}}

    def list_branches(self, asked: dict) -> dict:
        """Return the names of the branches."""
        return {"branches": list(self.find(asked).branches())}

    def delete_branch(self, asked: dict) -> dict:
        """Delete a branch, if there is one of this name."""
        found, name = self.find(asked), asked["branchName"]
        with found.changing(asked["caller"]):
            if name == found.default:
                raise error("DefaultBranchCannotBeDeleted", name)
            if name not in (there := found.branches()):
                return {}
            found.git("update-ref", "-d", f"refs/heads/{name}", there[name])
        return {"deletedBranch": {"branchName": name, "commitId": there[name]}}

    def find(self, asked: dict) -> Repository:
        """Return the repository that a call is about.

        Raises:
            Refusal: there is none of this name.
        """
        name = asked["repositoryName"]
        if name not in self.repositories:
            raise error("RepositoryDoesNotExist", name)
        return self.repositories[name]


def of(region: str) -> Backend:
    """Return the repositories of a region."""
    return codecommit_backends[ACCOUNT][region]


def regions() -> set[str]:
    """Return the regions that have repositories, and the usual one."""
    return {REGION, *codecommit_backends[ACCOUNT]}


def tip(region: str, repository: str, branch: str) -> tuple[str, str]:
    """Return the last commit of a branch: its id and its message.

    Raises:
        Refusal: there is no such repository or branch.
    """
    asked = {"repositoryName": repository}
    commit = of(region).find(asked).tip(branch)
    facts = of(region).get_commit(asked | {"commitId": commit})["commit"]
    return commit, facts["message"].strip()


def archive(region: str, repository: str, commit: str) -> bytes:
    """Return the files of a commit as a ZIP file.

    Raises:
        Refusal: there is no such repository or commit.
    """
    found = of(region).find({"repositoryName": repository})
    return found.raw("archive", "--format=zip", found.resolve(commit, "CommitIdDoesNotExist"))


def _described(one: Repository) -> dict:
    facts = {
        "accountId": ACCOUNT,
        "repositoryId": one.id,
        "repositoryName": one.name,
        "lastModifiedDate": one.changed,
        "creationDate": one.created,
        "cloneUrlHttp": door.url(one.name),
        "cloneUrlSsh": f"ssh://git-codecommit.{one.region}.amazonaws.com/v1/repos/{one.name}",
        "Arn": one.arn,
    }
    optional = {"repositoryDescription": one.description, "defaultBranch": one.default}
    return facts | {name: value for name, value in optional.items() if value}


codecommit_backends.backend = Backend
calls.DOORS[door.DOOR] = door.door
