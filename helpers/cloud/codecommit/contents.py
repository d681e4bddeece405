"""Commits and files of CodeCommit by its API: git is asked, and git makes them."""

from __future__ import annotations

import re

from helpers.cloud.calls import Refusal
from helpers.cloud.codecommit.errors import error
from helpers.cloud.codecommit.repository import NAMES, NOTHING, GitError


class Operations:
    """The operations on what is in repositories, for the backend of a region."""

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
        except Refusal as problem:
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


def _about(asked: dict, text: str) -> dict:
    """Return what a commit says of itself; by default the caller's name."""
    name = asked.get("name") or asked.get("authorName") or asked["caller"].rsplit("/", 1)[-1]
    return {
        "parent": asked.get("parentCommitId") or "",
        "message": asked.get("commitMessage") or text,
        "name": name,
        "email": asked.get("email") or "",
        "who": asked["caller"],
    }
