"""A repository of CodeCommit: a bare one of git, which is asked about everything."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator

from helpers.cloud import environment
from helpers.cloud.codecommit.errors import error
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import events

MODES = {"NORMAL": "100644", "EXECUTABLE": "100755", "SYMLINK": "120000"}
NAMES = {mode: name for name, mode in MODES.items()}
NOTHING = "0" * 40
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
KINDS = {"heads": "branch", "tags": "tag"}


class GitError(RuntimeError):
    """A command of git fails; the message is what it says."""


def variables(**more: str) -> dict[str, str]:
    """Return the environment of a git that has no settings of this machine or learner."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    return kept | own | more


class Repository:
    """One repository.

    Attributes:
        region, name, description, tags: as it was made.
        id: its id.
        folder: where git has it.
        created, changed: in seconds since the epoch.
    """

    def __init__(self, region: str, name: str, description: str, tags: dict[str, str]) -> None:
        """Make an empty repository."""
        self.region, self.name, self.description, self.tags = region, name, description, tags
        self.id, self.created = str(uuid.uuid4()), time.time()
        self.changed, self._lock = self.created, threading.RLock()
        self.folder = environment.folder() / "codecommit" / f"{self.id}.git"
        self.folder.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", "--template=", "--initial-branch=main")
        self.git("config", "receive.autogc", "false")  # a process that would outlive the push

    @property
    def arn(self) -> str:
        """Its ARN."""
        return f"arn:aws:codecommit:{self.region}:{ACCOUNT}:{self.name}"

    @property
    def default(self) -> str:
        """The name of its default branch, or empty while there is none."""
        head = self.git("symbolic-ref", "HEAD").strip()
        return head.removeprefix("refs/heads/") if head in self.refs() else ""

    def git(self, *words: str, data: bytes = b"", **more: str) -> str:
        """Run git in it and return what it says; ``more`` are variables.

        Raises:
            GitError: it fails.
        """
        return self.raw(*words, data=data, **more).decode(errors="replace")

    def raw(self, *words: str, data: bytes = b"", **more: str) -> bytes:
        """Do as ``git``, and return bytes."""
        command = ["git", "--git-dir", ".", "--literal-pathspecs", *words]
        run = {"cwd": self.folder, "env": variables(**more), "capture_output": True}
        done = subprocess.run(command, input=data, **run)
        if done.returncode:
            raise GitError(done.stderr.decode(errors="replace").strip())
        return done.stdout

    def refs(self) -> dict[str, str]:
        """Return all refs, and what they point to."""
        lines = self.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return dict(line.split(" ") for line in lines)

    def branches(self) -> dict[str, str]:
        """Return the names of the branches, and their last commits."""
        heads = "refs/heads/"
        return {n.removeprefix(heads): c for n, c in self.refs().items() if n.startswith(heads)}

    def tip(self, branch: str) -> str:
        """Return the last commit of a branch.

        Raises:
            Refusal: there is no such branch.
        """
        if branch not in (there := self.branches()):
            raise error("BranchDoesNotExist", branch)
        return there[branch]

    def resolve(self, specifier: str, code: str = "CommitDoesNotExist") -> str:
        """Return the id of the commit that a branch, a tag or an id means.

        Raises:
            Refusal: there is none; ``code`` says how that is called.
        """
        words = ("rev-parse", "--verify", "--quiet", "--end-of-options")
        try:
            return self.git(*words, f"{specifier}^{{commit}}").strip()
        except (GitError, ValueError):
            raise error(code, specifier) from None

    def entry(self, commit: str, path: str) -> tuple[str, str, str] | None:
        """Return mode, kind and id of what is at a path, or None if nothing is there."""
        try:
            said = self.git("ls-tree", "-z", commit, "--", path)
        except (GitError, ValueError):
            return None
        found = [line.partition("\t") for line in said.split("\0") if line]
        return next((tuple(facts.split(" ")) for facts, _, name in found if name == path), None)

    def differences(self, before: str, after: str, *paths: str) -> list[tuple]:
        """Return what differs between two commits or trees.

        Returns:
            For each file its path, modes and ids before and after, and ``A``, ``M`` or ``D``.
        """
        words = ("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev")
        said = self.git(*words, before or EMPTY_TREE, after, "--", *paths).split("\0")
        pairs = zip(said[::2], said[1::2], strict=False)
        return [(path, *facts.lstrip(":").split(" ")) for facts, path in pairs]

    def commit(self, branch: str, puts: list[dict], deletes: list[str], about: dict) -> str:
        """Make a commit on top of a branch, which may be the first, and return its id.

        Args:
            branch: the branch.
            puts: files, as the API has them.
            deletes: paths of files.
            about: ``parent``, ``message``, ``name``, ``email``, and ``who`` makes it (an ARN).

        Raises:
            Refusal: the parent is not the branch's last commit, a path or a file mode is none,
                nothing changes.
        """
        with self.changing(about["who"]), tempfile.TemporaryDirectory() as scratch:
            parent = self._parent(branch, about["parent"])
            index = {"GIT_INDEX_FILE": f"{scratch}/index", "GIT_WORK_TREE": scratch}
            if parent:
                self.git("read-tree", parent, **index)
            words = ["update-index", "--add"]
            for one in puts:
                mode, data = one.get("fileMode", "NORMAL"), one.get("fileContent") or b""
                if mode not in MODES:
                    raise error("InvalidFileMode", mode)
                blob = self.git("hash-object", "-w", "--stdin", data=data).strip()
                words += ["--cacheinfo", f"{MODES[mode]},{blob},{one['filePath'].strip('/')}"]
            for path in deletes:
                if not parent or not self.entry(parent, path.strip("/")):
                    raise error("FileDoesNotExist", path)
            try:
                gone = (path.strip("/") for path in deletes)
                self.git(*words, "--force-remove", "--", *gone, **index)
            except (GitError, ValueError) as problem:
                raise error("InvalidPath", str(problem)) from None
            tree = self.git("write-tree", **index).strip()
            if tree == (self.git("rev-parse", f"{parent}^{{tree}}").strip() if parent else ""):
                raise error("NoChange")
            who = {"NAME": about["name"], "EMAIL": about["email"]}
            who = {f"GIT_{one}_{n}": v for one in ("AUTHOR", "COMMITTER") for n, v in who.items()}
            parents = ["-p", parent] if parent else []
            made = self.git("commit-tree", tree, *parents, data=about["message"].encode(), **who)
            self.git("update-ref", f"refs/heads/{branch}", made.strip(), parent or NOTHING)
            return made.strip()

    @contextlib.contextmanager
    def changing(self, who: str) -> Iterator[None]:
        """Let nobody else change refs meanwhile, and tell EventBridge which ones have changed.

        The first branch that comes becomes the default.
        """
        with self._lock:
            before = self.refs()
            yield
            after = self.refs()
            heads = [name for name in after if name.startswith("refs/heads/")]
            if heads and not self.default:
                self.git("symbolic-ref", "HEAD", heads[0])
            for name in sorted(before.keys() | after.keys()):
                if before.get(name) != after.get(name):
                    self.changed = time.time()
                    self._tell(name, before.get(name), after.get(name), who)

    def check_branch_name(self, name: str) -> None:
        """Refuse what is no name of a branch."""
        try:
            self.git("check-ref-format", f"refs/heads/{name}")
        except (GitError, ValueError):
            raise error("InvalidBranchName", name) from None

    def remove(self) -> None:
        """Remove it from the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _parent(self, branch: str, given: str) -> str:
        """Return the commit below a new one, empty if that is the repository's first."""
        self.check_branch_name(branch)
        there = self.branches()
        if not there:
            return ""
        tip = self.tip(branch)
        if not given:
            raise error("ParentCommitIdRequired")
        if self.resolve(given, "ParentCommitDoesNotExist") != tip:
            raise error("ParentCommitIdOutdated", given)
        return tip

    def _tell(self, ref: str, old: str | None, new: str | None, who: str) -> None:
        _, kind, name = ref.split("/", 2)
        event = "Created" if not old else "Updated" if new else "Deleted"
        detail = {
            "event": f"reference{event}",
            "referenceType": KINDS.get(kind, kind),
            "referenceName": name,
            "referenceFullName": ref,
            "repositoryName": self.name,
            "repositoryId": self.id,
            "callerUserArn": who,
        }
        detail |= {"commitId": new} if new else {}
        detail |= {"oldCommitId": old} if old else {}
        change = "CodeCommit Repository State Change"
        events.emit(self.region, "aws.codecommit", change, [self.arn], detail)
