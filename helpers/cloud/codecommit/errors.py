"""What CodeCommit refuses, in its words."""

from __future__ import annotations

from helpers.cloud.calls import Refusal

TEXTS = {
    "BlobIdDoesNotExist": "The specified blob does not exist: {}",
    "BranchDoesNotExist": "Branch {} does not exist",
    "BranchNameExists": "Branch named {} already exists",
    "CommitDoesNotExist": "Commit {} does not exist",
    "CommitIdDoesNotExist": "Commit ID {} does not exist",
    "DefaultBranchCannotBeDeleted": "The default branch {} cannot be deleted",
    "FileDoesNotExist": "Could not find path {}",
    "FileEntryRequired": "At least one file must be put or deleted",
    "FolderDoesNotExist": "Could not find path {}",
    "InvalidBranchName": "The branch name {} is not valid",
    "InvalidFileMode": "The specified file mode permission is not valid: {}. Valid file mode "
    "permissions are EXECUTABLE, NORMAL and SYMLINK.",
    "InvalidPath": "The path {} is not valid",
    "InvalidRepositoryName": "The repository name is not valid. Repository names can be any valid "
    "combination of letters, numbers, periods, underscores, and dashes between 1 and 100 "
    "characters in length. Names are case sensitive.",
    "NoChange": "The commit cannot be created because no changes will be made to the repository "
    "as a result of this commit. A commit must contain at least one change.",
    "ParentCommitDoesNotExist": "The parent commit ID {} does not exist",
    "ParentCommitIdOutdated": "The parent commit ID {} is not the current tip of the branch",
    "ParentCommitIdRequired": "A parent commit ID is required. To view the full commit ID of a "
    "branch in a repository, use GetBranch or a Git command.",
    "RepositoryDoesNotExist": "{} does not exist",
    "RepositoryNameExists": "Repository named {} already exists",
    "SameFileContent": "The file was not added or updated because the content of the file is "
    "exactly the same as the content of that file in the repository and branch that you "
    "specified.",
}


def error(code: str, what: str = "") -> Refusal:
    """Return an error about a thing, by its code without ``Exception``."""
    return Refusal(f"{code}Exception", TEXTS[code].format(what))
