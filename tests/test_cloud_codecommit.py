"""CodeCommit on the local cloud: repositories of real git, for those who may use them."""

import io
import json
import os
import zipfile
from types import SimpleNamespace

import boto3
import pytest
from asking import good, sh
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as some
from waiting import received, until

from helpers import cloud

ACCOUNT = "123456789012"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
HELPER = (
    "-c credential.helper='!aws codecommit credential-helper --ignore-host-check $@' "
    "-c credential.useHttpPath=true"
)


@pytest.fixture(scope="module")
def aws(shared_home):
    return cloud.start()


@pytest.fixture
def commit(aws):
    return boto3.client("codecommit")


@pytest.fixture
def repository(commit, request):
    """An empty repository: its name, where git finds it, its id."""
    name = f"r{abs(hash(request.node.nodeid)) % 10**10}"
    made = commit.create_repository(repositoryName=name)["repositoryMetadata"]
    return SimpleNamespace(
        name=name, url=made["cloneUrlHttp"], id=made["repositoryId"], arn=made["Arn"]
    )


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A place to work in, for somebody who has nothing of git set up."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_TERMINAL_PROMPT", "0")
    for person in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{person}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{person}_EMAIL", "ada@example.com")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clone(repository, place="work", **keys):
    return good(f"git clone {HELPER} {repository.url} {place}", **keys)


def quick(repository, place="work"):
    """Do as ``clone`` with one password for all that follows: AWS's command takes its time."""
    path = repository.url.partition("//")[2].replace("/", "\\npath=", 1)
    aws = "aws codecommit credential-helper --ignore-host-check get"
    good(f"printf 'protocol=http\\nhost={path}\\n' | {aws} > password")
    helper = f"credential.helper='!cat {os.getcwd()}/password; :'"
    return good(f"git clone -c {helper} {repository.url} {place}")


def add(place, message, **files):
    """Commit files in a clone."""
    for name, text in files.items():
        (place / name.replace("__", "/")).parent.mkdir(exist_ok=True)
        (place / name.replace("__", "/")).write_text(text)
    good(f"cd {place} && git add -A && git commit -qm '{message}'")
    return good(f"git -C {place} rev-parse HEAD")


def user(name, *actions, resource="*"):
    """The variables of a new user who may do so much."""
    iam = boto3.client("iam")
    iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": actions, "Resource": resource}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return variables(key["AccessKeyId"], key["SecretAccessKey"])


def variables(key, secret, token=""):
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return {name: value for name, value in zip(names, (key, secret, token), strict=True) if value}


def refused(code, call, **arguments):
    """Check that a call is refused with a code, and return the message."""
    with pytest.raises(ClientError) as problem:
        call(**arguments)
    error = problem.value.response["Error"]
    assert error["Code"] in (code, f"{code}Exception"), problem.value
    return error["Message"]


# --- git


def test_what_is_pushed_is_there(commit, repository, folder):
    assert "empty repository" in clone(repository)
    work = folder / "work"
    good("git -C work checkout -qb trunk")
    first = add(work, "First", README="hello\n", src__app="print()\n")
    good("git -C work push -q origin trunk")
    second = add(work, "Second", README="hello again\n")
    good("git -C work push -q origin trunk")
    about = {"repositoryName": repository.name}
    assert commit.get_repository(**about)["repositoryMetadata"]["defaultBranch"] == "trunk"
    assert commit.get_branch(**about, branchName="trunk")["branch"]["commitId"] == second
    got = commit.get_commit(**about, commitId=second)["commit"]
    assert (got["parents"], got["message"]) == ([first], "Second\n")
    assert got["author"]["name"] == "Ada" and got["author"]["email"] == "ada@example.com"
    assert got["treeId"] == good("git -C work rev-parse 'HEAD^{tree}'")
    file = commit.get_file(**about, filePath="README")
    assert (file["fileContent"], file["fileSize"]) == (b"hello again\n", 12)
    assert commit.get_blob(**about, blobId=file["blobId"])["content"] == b"hello again\n"
    found = commit.get_folder(**about, folderPath="/", commitSpecifier=first)
    assert [one["absolutePath"] for one in found["files"]] == ["README"]
    assert [one["absolutePath"] for one in found["subFolders"]] == ["src"]
    clone(repository, "again")
    assert (folder / "again/src/app").read_text() == "print()\n"
    assert not (folder / ".gitconfig").exists()


def test_large_files_come_and_go(commit, repository, folder):
    quick(repository)
    (folder / "work/data").write_bytes(os.urandom(5 << 20))
    add(folder / "work", "Large")
    good("git -C work push -q origin HEAD:main")
    quick(repository, "again")
    assert (folder / "again/data").read_bytes() == (folder / "work/data").read_bytes()


def test_who_may_pull_may_not_push(commit, repository, folder):
    quick(repository)
    add(folder / "work", "First", README="hello\n")
    good("git -C work push -q origin HEAD:main")
    reader = user("reader", "codecommit:GitPull", resource=repository.arn)
    clone(repository, "theirs", **reader)
    add(folder / "theirs", "Second", README="bye\n")
    status, said = sh("git -C theirs push origin HEAD:main", **reader)
    assert (
        status
        and (
            f"User: arn:aws:iam::{ACCOUNT}:user/reader is not authorized to perform: "
            f"codecommit:GitPush on resource: {repository.arn}"
        )
        in said
    )
    assert "returned error: 403" in said
    nobody = user("nobody", "s3:*")
    status, said = sh(f"git clone {HELPER} {repository.url} none", **nobody)
    assert status and "codecommit:GitPull" in said


def test_a_session_of_a_role_clones_with_its_token(commit, repository):
    iam = boto3.client("iam")
    keys = user("member", "sts:AssumeRole")
    one = {"Effect": "Allow", "Action": "sts:AssumeRole"}
    one["Principal"] = {"AWS": f"arn:aws:iam::{ACCOUNT}:user/member"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [one]})
    role = iam.create_role(RoleName="puller", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    policy = "arn:aws:iam::aws:policy/AWSCodeCommitReadOnly"
    iam.attach_role_policy(RoleName="puller", PolicyArn=policy)
    words = "--query 'Credentials.[AccessKeyId,SecretAccessKey,SessionToken]' --output text"
    said = good(f"aws sts assume-role --role-arn {role} --role-session-name ada {words}", **keys)
    session = variables(*said.split())
    assert "empty repository" in clone(repository, **session)
    status, said = sh(
        f"git clone {HELPER} {repository.url} again", **session | {"AWS_SESSION_TOKEN": "x"}
    )
    assert status and "403" in said


def test_a_wrong_password_and_none(commit, repository):
    status, said = sh(f"git clone {HELPER} {repository.url}", AWS_SECRET_ACCESS_KEY="wrong")
    assert status and "returned error: 403" in said
    status, said = sh(f"git clone {repository.url}")
    assert status and "could not read Username" in said
    status, said = sh(f"git clone {HELPER} {repository.url}x")
    assert status and f"repository '{repository.url}x/' not found" in said
    place = {"AWS_DEFAULT_REGION": "eu-west-1"}  # the signature is for another repository
    status, said = sh(f"git clone {HELPER} {repository.url}", **place)
    assert status and "returned error: 403" in said
    ask = f"protocol=http\\nhost=127.0.0.1\\npath=v1/repos/{repository.name}\\n"
    said = good(f"printf '{ask}' | aws codecommit credential-helper --ignore-host-check get")
    name, password = (line.split("=", 1)[1] for line in said.splitlines())
    date = password[:15]
    old = password.replace(date[:8], "20200101")
    for word, status in ((password, 200), (old, 403), (password[:-1] + "z", 403), ("x", 403)):
        url = f"{repository.url}/info/refs?service=git-upload-pack"
        code = good(f"curl -s -o /dev/null -w '%{{http_code}}' -u '{name}:{word}' '{url}'")
        assert int(code) == status, word
    url = f"{repository.url}/HEAD"
    assert good(f"curl -s -o /dev/null -w '%{{http_code}}' -u '{name}:{password}' '{url}'") == "404"


# --- The API


def test_a_file_that_is_put_can_be_pulled(commit, repository, folder):
    about = {"repositoryName": repository.name, "branchName": "main"}
    first = commit.put_file(
        **about, filePath="docs/a b.txt", fileContent=b"one", name="Bob", email="bob@example.com"
    )
    quick(repository)
    assert (folder / "work/docs/a b.txt").read_text() == "one"
    assert (
        good("git -C work log -1 --format='%H %an %ae'")
        == f"{first['commitId']} Bob bob@example.com"
    )
    text = refused(
        "ParentCommitIdRequired", commit.put_file, **about, filePath="x", fileContent=b""
    )
    assert text.startswith("A parent commit ID is required")
    parent = {"parentCommitId": first["commitId"]}
    same = {"filePath": "docs/a b.txt", "fileContent": b"one"}
    refused("SameFileContent", commit.put_file, **about, **parent, **same)
    good("cd work && echo two > two && git add two && git commit -qm two && git push -q")
    refused(
        "ParentCommitIdOutdated", commit.put_file, **about, **parent, filePath="x", fileContent=b""
    )
    parent = {"parentCommitId": good("git -C work rev-parse HEAD")}
    commit.put_file(
        **about, **parent, filePath="run", fileContent=b"#!/bin/sh\n", fileMode="EXECUTABLE"
    )
    good("git -C work pull -q")
    assert os.access(folder / "work/run", os.X_OK)
    for mode in ("0755", ""):
        odd = {"filePath": "x", "fileContent": b"x", "fileMode": mode}
        tip = about | {"parentCommitId": good("git -C work rev-parse HEAD")}
        refused("InvalidFileMode", commit.put_file, **tip, **odd)
        text = refused("InvalidFileMode", commit.create_commit, **tip, putFiles=[odd])
        assert f"not valid: {mode}." in text
    refused(
        "ParentCommitDoesNotExist",
        commit.put_file,
        **about,
        parentCommitId="0" * 40,
        filePath="x",
        fileContent=b"",
    )
    other = about | {"branchName": "other"} | parent
    refused("BranchDoesNotExist", commit.put_file, **other, filePath="x", fileContent=b"")
    for path in ("../x", ".git/config", "a/../b"):
        now = commit.get_branch(**about)["branch"]["commitId"]
        wrong = about | {"parentCommitId": now, "filePath": path, "fileContent": b"x"}
        refused("InvalidPath", commit.put_file, **wrong)


def test_several_files_change_in_one_commit(commit, repository):
    about = {"repositoryName": repository.name, "branchName": "main"}
    puts = [{"filePath": name, "fileContent": name.encode()} for name in ("a", "b", "c/d")]
    refused("FileEntryRequired", commit.create_commit, **about)
    first = commit.create_commit(**about, putFiles=puts, commitMessage="First")
    assert [one["absolutePath"] for one in first["filesAdded"]] == ["a", "b", "c/d"]
    parent = {"parentCommitId": first["commitId"]}
    refused("NoChange", commit.create_commit, **about, **parent, putFiles=puts)
    gone = {"deleteFiles": [{"filePath": "none"}]}
    refused("FileDoesNotExist", commit.create_commit, **about, **parent, **gone)
    puts = [{"filePath": "b", "fileContent": b"new"}, {"filePath": "e", "fileContent": b"e"}]
    gone = {"deleteFiles": [{"filePath": "a"}]}
    second = commit.create_commit(**about, **parent, putFiles=puts, **gone)
    names = [
        [one["absolutePath"] for one in second[f"files{kind}"]]
        for kind in ("Added", "Updated", "Deleted")
    ]
    assert names == [["e"], ["b"], ["a"]]
    where = {"repositoryName": repository.name, "afterCommitSpecifier": "main"}
    found = commit.get_differences(**where, beforeCommitSpecifier=first["commitId"])
    kinds = {
        one.get("afterBlob", one.get("beforeBlob"))["path"]: one["changeType"]
        for one in found["differences"]
    }
    assert kinds == {"a": "D", "b": "M", "e": "A"}
    assert len(commit.get_differences(**where)["differences"]) == 3
    assert len(commit.get_differences(**where, afterPath="c")["differences"]) == 1


def test_branches_are_refs(commit, repository, folder):
    about = {"repositoryName": repository.name}
    made = commit.put_file(**about, branchName="main", filePath="a", fileContent=b"a")
    first = made["commitId"]
    commit.create_branch(**about, branchName="feature/one", commitId=first)
    again = {"branchName": "feature/one", "commitId": first}
    refused("BranchNameExists", commit.create_branch, **about, **again)
    wrong = {"branchName": "x", "commitId": "0" * 40}
    refused("CommitDoesNotExist", commit.create_branch, **about, **wrong)
    wrong = {"branchName": "a..b", "commitId": first}
    refused("InvalidBranchName", commit.create_branch, **about, **wrong)
    assert commit.list_branches(**about)["branches"] == ["feature/one", "main"]
    refused("DefaultBranchCannotBeDeleted", commit.delete_branch, **about, branchName="main")
    commit.update_default_branch(**about, defaultBranchName="feature/one")
    quick(repository)
    assert good("git -C work branch --show-current") == "feature/one"
    gone = commit.delete_branch(**about, branchName="main")["deletedBranch"]
    assert gone == {"branchName": "main", "commitId": first}
    refused("BranchDoesNotExist", commit.get_branch, **about, branchName="main")
    refused("BranchDoesNotExist", commit.update_default_branch, **about, defaultBranchName="main")


def test_what_is_not_there(commit, repository):
    about = {"repositoryName": repository.name}
    refused("RepositoryNameExists", commit.create_repository, **about)
    refused("InvalidRepositoryName", commit.create_repository, repositoryName="a b")
    text = refused("RepositoryDoesNotExist", commit.get_repository, repositoryName="none")
    assert text == "none does not exist"
    refused("CommitDoesNotExist", commit.get_file, **about, filePath="a")
    commit.put_file(**about, branchName="main", filePath="a", fileContent=b"a")
    refused("FileDoesNotExist", commit.get_file, **about, filePath="b")
    refused("FolderDoesNotExist", commit.get_folder, **about, folderPath="b")
    refused("CommitIdDoesNotExist", commit.get_commit, **about, commitId="0" * 40)
    refused("BlobIdDoesNotExist", commit.get_blob, **about, blobId="0" * 40)
    text = refused("NotImplemented", commit.list_pull_requests, **about)
    assert "(pull requests, approvals" in text
    assert repository.name in str(commit.list_repositories()["repositories"])
    commit.update_repository_description(**about, repositoryDescription="of mine")
    found = commit.batch_get_repositories(repositoryNames=[repository.name, "none"])
    assert found["repositories"][0]["repositoryDescription"] == "of mine"
    assert found["repositoriesNotFound"] == ["none"]
    assert commit.delete_repository(**about)["repositoryId"] == repository.id
    status, said = sh(f"git clone {HELPER} {repository.url}")
    assert status and "not found" in said


def test_what_is_no_operation_of_aws_cannot_be_called(commit):
    def find(params, **_):
        params["headers"]["X-Amz-Target"] = "CodeCommit_20150413.Find"

    commit.meta.events.register("before-call.codecommit.ListRepositories", find)
    assert "no such operation" in refused("NotImplemented", commit.list_repositories)


@settings(max_examples=20, deadline=None)
@given(
    path=some.text(some.characters(codec="utf-8"), min_size=1, max_size=20),
    specifier=some.text(alphabet="main@{}^~:-01HEAD/", min_size=1, max_size=9),
)
def test_any_path_is_put_as_it_is_or_refused(aws, path, specifier):
    client = boto3.client("codecommit")
    name = {"repositoryName": "paths"}
    if not any(
        one["repositoryName"] == "paths" for one in client.list_repositories()["repositories"]
    ):
        client.create_repository(**name)
        client.put_file(**name, branchName="main", filePath="first", fileContent=b"")
    tip = client.get_branch(**name, branchName="main")["branch"]["commitId"]
    content = os.urandom(8)
    put = {"branchName": "main", "parentCommitId": tip, "filePath": path, "fileContent": content}
    try:
        client.put_file(**name, **put)
    except ClientError as problem:
        assert problem.response["Error"]["Code"] == "InvalidPathException", problem
    else:
        assert client.get_file(**name, filePath=path)["fileContent"] == content
    try:
        client.get_file(**name, filePath="first", commitSpecifier=specifier)
    except ClientError as problem:
        codes = ("CommitDoesNotExistException", "FileDoesNotExistException")
        assert problem.response["Error"]["Code"] in codes, problem


# --- Events


@pytest.fixture
def told(commit, repository):
    """A function that returns the events of the repository since it was last asked."""
    events = boto3.client("events")
    queue = boto3.client("sqs").create_queue(QueueName=repository.name)["QueueUrl"]
    pattern = {"source": ["aws.codecommit"], "resources": [repository.arn]}
    events.put_rule(Name=repository.name, EventPattern=json.dumps(pattern))
    target = {"Id": "q", "Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:{repository.name}"}
    events.put_targets(Rule=repository.name, Targets=[target])

    def take(count):
        found = []

        def more():
            found.extend(received(queue))
            return len(found) >= count

        until(more)
        return found

    yield take
    events.remove_targets(Rule=repository.name, Ids=["q"])
    events.delete_rule(Name=repository.name)


def test_every_change_of_a_ref_is_an_event(commit, repository, told, folder):
    about = {"repositoryName": repository.name}
    quick(repository)
    first = add(folder / "work", "First", README="hello\n")
    good("git -C work push -q origin HEAD:main")
    (event,) = told(1)
    assert event["detail-type"] == "CodeCommit Repository State Change"
    assert event["resources"] == [repository.arn]
    created = {
        "event": "referenceCreated",
        "repositoryName": repository.name,
        "repositoryId": repository.id,
        "referenceType": "branch",
        "referenceName": "main",
        "referenceFullName": "refs/heads/main",
        "commitId": first,
        "callerUserArn": ROOT,
    }
    assert event["detail"] == created
    second = add(folder / "work", "Second", README="bye\n")
    good("git -C work tag v1 && git -C work push -q origin HEAD:main v1")
    events = {one["detail"]["referenceFullName"]: one["detail"] for one in told(2)}
    updated = {"event": "referenceUpdated", "commitId": second, "oldCommitId": first}
    assert events["refs/heads/main"] == created | updated
    assert events["refs/tags/v1"]["referenceType"] == "tag"
    put = {"filePath": "x", "fileContent": b"x", "parentCommitId": second}
    third = commit.put_file(**about, branchName="main", **put)["commitId"]
    commit.create_branch(**about, branchName="next", commitId=third)
    commit.delete_branch(**about, branchName="next")
    kinds = [one["detail"]["event"] for one in told(3)]
    assert kinds == ["referenceUpdated", "referenceCreated", "referenceDeleted"]
    good("git -C work pull -q origin main && git -C work push -q origin HEAD:main")  # no change
    status, said = sh("git -C work push origin :main")
    assert status and "refusing to delete the current branch" in said
    good("git -C work push -q origin :v1")
    assert [one["detail"]["event"] for one in told(1)] == ["referenceDeleted"]


# --- In stacks


def test_a_stack_begins_a_repository_with_a_zip(commit, folder):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("src/app.py", "print()\n")
        archive.writestr("README", "hello\n")
    s3, cf = boto3.client("s3"), boto3.client("cloudformation")
    s3.create_bucket(Bucket="seeds")
    s3.put_object(Bucket="seeds", Key="seed.zip", Body=body.getvalue())
    code = {"BranchName": "trunk", "S3": {"Bucket": "seeds", "Key": "seed.zip"}}
    one = {"RepositoryName": "seeded", "Code": code}
    template = {
        "Resources": {"R": {"Type": "AWS::CodeCommit::Repository", "Properties": one}},
        "Outputs": {"Url": {"Value": {"Fn::GetAtt": ["R", "CloneUrlHttp"]}}},
    }
    cf.create_stack(StackName="seeded", TemplateBody=json.dumps(template))
    cf.get_waiter("stack_create_complete").wait(StackName="seeded")
    (output,) = cf.describe_stacks(StackName="seeded")["Stacks"][0]["Outputs"]
    good(f"git clone {HELPER} {output['OutputValue']} work")
    assert (folder / "work/src/app.py").read_text() == "print()\n"
    assert good("git -C work branch --show-current") == "trunk"
    cf.delete_stack(StackName="seeded")
    cf.get_waiter("stack_delete_complete").wait(StackName="seeded")
    refused("RepositoryDoesNotExist", commit.get_repository, repositoryName="seeded")
