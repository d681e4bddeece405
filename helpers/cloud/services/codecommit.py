"""CodeCommit: repositories of git, and the operations on them (``helpers.cloud.codecommit``).

Not here: pull requests, comments, approvals, triggers (rules of EventBridge do that), merges by
the API, and SSH.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

from botocore import xform_name
from moto.codecommit import urls
from moto.codecommit.models import codecommit_backends
from moto.core.base_backend import BaseBackend
from moto.core.responses import ActionResult, BaseResponse

from helpers.cloud import calls
from helpers.cloud.codecommit import door
from helpers.cloud.codecommit.errors import error
from helpers.cloud.codecommit.repository import NAMES, NOTHING, GitError, Repository
from helpers.cloud.environment import ACCOUNT, REGION
from helpers.cloud.services import sts


class Response(BaseResponse):
    """Reads the parameters of a call, and has the backend's method of its name answer it."""

    def __init__(self) -> None:
        super().__init__(service_name="codecommit")
        self.automated_parameter_parsing = True

    def call_action(self):
        """Answer a call."""
        method = getattr(of(self.region), xform_name(self._get_action()), None)
        if not method:
            raise NotImplementedError("")
        who = sts.caller(self.get_access_key())[0]
        return self.serialized(ActionResult(method(dict(self.params) | {"who": who})))


class Backend(BaseBackend):
    """The repositories of a region. A method is an operation: it takes and returns what AWS does.

    ``who`` in what it takes is the ARN of the caller.
    """

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
        return {"tags": self._of(asked["resourceArn"]).tags}

    def tag_resource(self, asked: dict) -> dict:
        """Add tags to a repository."""
        self._of(asked["resourceArn"]).tags.update(asked["tags"])
        return {}

    def untag_resource(self, asked: dict) -> dict:
        """Take tags away."""
        for key in asked["tagKeys"]:
            self._of(asked["resourceArn"]).tags.pop(key, None)
        return {}

    def create_branch(self, asked: dict) -> dict:
        """Make a branch that ends at a commit."""
        found, name = self.find(asked), asked["branchName"]
        found.check_branch_name(name)
        with found.changing(asked["who"]):
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
        with found.changing(asked["who"]):
            if name == found.default:
                raise error("DefaultBranchCannotBeDeleted", name)
            if name not in (there := found.branches()):
                return {}
            found.git("update-ref", "-d", f"refs/heads/{name}", there[name])
        return {"deletedBranch": {"branchName": name, "commitId": there[name]}}

    def get_commit(self, asked: dict) -> dict:
        """Return a commit."""
        found = self.find(asked)
        commit = found.resolve(asked["commitId"], "CommitIdDoesNotExist")
        words = ("show", "--no-patch", "--date=raw")
        form = "%T%n%P%n%an%n%ae%n%ad%n%cn%n%ce%n%cd%n%B"
        said = found.git(*words, f"--format=format:{form}", commit).split("\n", 8)
        people = [
            dict(zip(("name", "email", "date"), said[k : k + 3], strict=True)) for k in (2, 5)
        ]
        facts = {"commitId": commit, "treeId": said[0], "parents": said[1].split()}
        facts |= {"author": people[0], "committer": people[1]}
        return {"commit": facts | {"message": said[8], "additionalData": ""}}

    def get_file(self, asked: dict) -> dict:
        """Return a file as it is in a commit."""
        found, path = self.find(asked), asked["filePath"].strip("/")
        commit = found.resolve(asked.get("commitSpecifier") or "HEAD")
        mode, kind, blob = found.entry(commit, path) or ("", "", "")
        if kind != "blob":
            raise error("FileDoesNotExist", asked["filePath"])
        content = found.raw("cat-file", "blob", blob)
        facts = {"commitId": commit, "blobId": blob, "filePath": path, "fileMode": NAMES[mode]}
        return facts | {"fileSize": len(content), "fileContent": content}

    def get_folder(self, asked: dict) -> dict:
        """Return what is in a folder in a commit."""
        found, path = self.find(asked), asked["folderPath"].strip("/")
        commit = found.resolve(asked.get("commitSpecifier") or "HEAD")
        try:
            tree = found.git("rev-parse", "--verify", "--quiet", f"{commit}:{path}").strip()
            said = found.git("ls-tree", "-z", tree)
        except (GitError, ValueError):
            raise error("FolderDoesNotExist", asked["folderPath"]) from None
        answer = {"commitId": commit, "folderPath": path, "treeId": tree}
        parts = ("subFolders", "files", "symbolicLinks", "subModules")
        answer |= {name: [] for name in parts}
        for facts, _, name in (line.partition("\t") for line in said.split("\0") if line):
            mode, kind, what = facts.split(" ")
            one = {"absolutePath": f"{path}/{name}".lstrip("/"), "relativePath": name}
            if kind == "blob":
                place = "symbolicLinks" if mode == "120000" else "files"
                answer[place].append(one | {"blobId": what, "fileMode": NAMES[mode]})
            elif kind == "tree":
                answer["subFolders"].append(one | {"treeId": what})
            else:
                answer["subModules"].append(one | {"commitId": what})
        return answer

    def get_blob(self, asked: dict) -> dict:
        """Return the content of a file by its id."""
        found, blob = self.find(asked), asked["blobId"]
        try:
            if re.fullmatch("[0-9a-f]{40}", blob):
                return {"content": found.raw("cat-file", "blob", blob)}
        except GitError:
            pass
        raise error("BlobIdDoesNotExist", blob)

    def get_differences(self, asked: dict) -> dict:
        """Return which files differ between two commits."""
        found, before = self.find(asked), asked.get("beforeCommitSpecifier")
        before = found.resolve(before) if before else ""
        after = found.resolve(asked["afterCommitSpecifier"])
        both = (asked.get("beforePath"), asked.get("afterPath"))
        differences = []
        for path, *facts, kind in found.differences(
            before, after, *dict.fromkeys(filter(None, both))
        ):
            one = {"changeType": kind}
            for name, mode, blob in zip(
                ("beforeBlob", "afterBlob"), facts[:2], facts[2:], strict=True
            ):
                if blob != NOTHING:
                    one[name] = {"blobId": blob, "path": path, "mode": mode}
            differences.append(one)
        return {"differences": differences}

    def put_file(self, asked: dict) -> dict:
        """Add or change a file, which makes a commit."""
        found, path = self.find(asked), asked["filePath"].strip("/")
        text = f"Added or edited {path}"
        try:
            made = found.commit(asked["branchName"], [asked], [], _about(asked, text))
        except calls.Refusal as problem:
            if problem.code == "NoChangeException":
                raise error("SameFileContent") from None
            raise
        blob, tree = found.entry(made, path)[2], found.git("rev-parse", f"{made}^{{tree}}").strip()
        return {"commitId": made, "blobId": blob, "treeId": tree}

    def create_commit(self, asked: dict) -> dict:
        """Change several files in one commit."""
        if asked.get("setFileModes") or any("sourceFile" in p for p in asked.get("putFiles") or []):
            raise NotImplementedError("files are put with their content and mode")
        puts = asked.get("putFiles") or []
        deletes = [one["filePath"] for one in asked.get("deleteFiles") or []]
        if not puts and not deletes:
            raise error("FileEntryRequired")
        found, about = self.find(asked), _about(asked, "")
        made = found.commit(asked["branchName"], puts, deletes, about)
        parent = self.get_commit(asked | {"commitId": made})["commit"]["parents"]
        answer = {"commitId": made, "treeId": found.git("rev-parse", f"{made}^{{tree}}").strip()}
        names = {"A": "filesAdded", "M": "filesUpdated", "T": "filesUpdated", "D": "filesDeleted"}
        answer |= {name: [] for name in names.values()}
        for path, *modes, old, new, kind in found.differences("".join(parent), made):
            gone = kind == "D"
            one = {"absolutePath": path, "blobId": old if gone else new}
            answer[names[kind]].append(one | {"fileMode": NAMES[modes[not gone]]})
        return answer

    def find(self, asked: dict) -> Repository:
        """Return the repository that a call is about.

        Raises:
            Refusal: there is none of this name.
        """
        name = asked["repositoryName"]
        if name not in self.repositories:
            raise error("RepositoryDoesNotExist", name)
        return self.repositories[name]

    def _of(self, arn: str) -> Repository:
        return self.find({"repositoryName": arn.rsplit(":", 1)[-1]})


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
    return commit, facts["message"]


def archive(region: str, repository: str, commit: str) -> bytes:
    """Return the files of a commit as a ZIP file.

    Raises:
        Refusal: there is no such repository or commit.
    """
    found = of(region).find({"repositoryName": repository})
    return found.raw("archive", "--format=zip", found.resolve(commit, "CommitIdDoesNotExist"))


def _about(asked: dict, text: str) -> dict:
    """Return what a commit says of itself; by default the caller's name."""
    name = asked.get("name") or asked.get("authorName") or asked["who"].rsplit("/", 1)[-1]
    return {
        "parent": asked.get("parentCommitId") or "",
        "message": asked.get("commitMessage") or text,
        "name": name,
        "email": asked.get("email") or "",
        "who": asked["who"],
    }


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
