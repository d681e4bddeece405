"""Deploy actions: files to S3, templates to CloudFormation."""

from __future__ import annotations

import json
import mimetypes

from botocore.exceptions import ClientError

from helpers.cloud.archives import pack
from helpers.cloud.codepipeline import files
from helpers.cloud.codepipeline.job import Failed, Job
from helpers.cloud.stacks.api import Caller


def s3(job: Job, call: Caller) -> None:
    """Copy the input to a bucket: its files, or itself."""
    settings, (name,) = job.configuration, job.inputs
    bucket, key = settings["BucketName"], settings.get("ObjectKey", "")
    common = {n: settings[n] for n in ("CacheControl",) if n in settings}
    if settings["Extract"].lower() == "true":
        found = files.unpack(job, call, name).items()
        objects = {f"{key.rstrip('/')}/{n}" if key else n: data for n, (data, _) in found}
    elif key:
        objects = {key: files.fetch(job, call, name)}
    else:
        raise Failed("ObjectKey is required when Extract is false.", "ConfigurationError")
    for path, data in objects.items():
        kind = {"ContentType": mimetypes.guess_type(path)[0] or "binary/octet-stream"}
        call("s3", "PutObject", {"Bucket": bucket, "Key": path, "Body": data, **kind, **common})
    job.external = {"externalExecutionSummary": f"Deployed {len(objects)} object(s) to {bucket}"}


def cloudformation(job: Job, call: Caller) -> None:
    """Make, change or delete a stack, or a change set of it."""
    settings, mode = job.configuration, job.configuration["ActionMode"]
    name, stack = settings["StackName"], _stack(call, settings["StackName"])
    role = {"RoleARN": settings["RoleArn"]} if "RoleArn" in settings else {}
    change_set = {"StackName": name, "ChangeSetName": settings.get("ChangeSetName", "")}
    if mode.startswith("CHANGE_SET") and not settings.get("ChangeSetName"):
        raise Failed(f"ActionMode {mode} requires ChangeSetName.", "ConfigurationError")
    if mode == "CREATE_UPDATE":
        operation = "UpdateStack" if stack else "CreateStack"
        try:
            call("cloudformation", operation, {"StackName": name, **role, **_template(job, call)})
        except ClientError as problem:
            if "No updates are to be performed" not in problem.response["Error"]["Message"]:
                raise
    elif mode == "CHANGE_SET_REPLACE":
        if stack:
            call("cloudformation", "DeleteChangeSet", change_set)
        kind = "UPDATE" if stack and stack["StackStatus"] != "REVIEW_IN_PROGRESS" else "CREATE"
        wanted = {"ChangeSetType": kind, **change_set, **role, **_template(job, call)}
        call("cloudformation", "CreateChangeSet", wanted)
        made = _settled(
            job, lambda: call("cloudformation", "DescribeChangeSet", change_set), "Status"
        )
        if made["Status"] == "FAILED" and "didn't contain changes" not in made["StatusReason"]:
            raise Failed(f"Failed to create change set {name}: {made['StatusReason']}")
        return
    elif mode == "CHANGE_SET_EXECUTE":
        call("cloudformation", "ExecuteChangeSet", change_set)
    elif mode == "DELETE_ONLY":
        if stack:
            call("cloudformation", "DeleteStack", {"StackName": name, **role})
    else:
        raise Failed(f"The local cloud does not have ActionMode {mode}.", "ConfigurationError")
    done = _settled(job, lambda: _stack(call, name), "StackStatus")
    if not done:  # deleted
        return
    job.external = {"externalExecutionId": done["StackId"]}
    status = done["StackStatus"]
    if "FAILED" in status or "ROLLBACK" in status:
        reason = done.get("StackStatusReason", "")
        raise Failed(f"Stack {name} is in status {status}. {reason}".rstrip())
    pairs = {one["OutputKey"]: one["OutputValue"] for one in done.get("Outputs", [])}
    job.variables = pairs
    if job.outputs and (file := settings.get("OutputFileName")):
        files.store(job, call, pack({file: (json.dumps(pairs).encode(), 0o644)}))


def _template(job: Job, call: Caller) -> dict:
    """Return the template of a stack and what goes with it."""
    settings = job.configuration
    if "TemplatePath" not in settings:
        raise Failed("TemplatePath is required.", "ConfigurationError")
    try:
        given = json.loads(settings.get("ParameterOverrides") or "{}")
        if path := settings.get("TemplateConfiguration"):
            given = json.loads(files.text(job, call, path)).get("Parameters", {}) | given
    except ValueError as problem:
        raise Failed(f"The parameters are no JSON: {problem}", "ConfigurationError") from None
    if functions := [n for n, value in given.items() if isinstance(value, dict)]:
        text = f"The local cloud reads no Fn:: in ParameterOverrides: {', '.join(functions)}"
        raise Failed(text, "ConfigurationError")
    pairs = [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()]
    wanted = {"TemplateBody": files.text(job, call, settings["TemplatePath"]), "Parameters": pairs}
    names = settings.get("Capabilities", "").split(",")
    return wanted | {"Capabilities": [one.strip() for one in names if one.strip()]}


def _stack(call: Caller, name: str) -> dict | None:
    """Return a stack, or nothing if there is none."""
    try:
        return call("cloudformation", "DescribeStacks", {"StackName": name})["Stacks"][0]
    except ClientError as problem:
        if "does not exist" not in problem.response["Error"].get("Message", ""):
            raise
        return None


def _settled(job: Job, look, status: str) -> dict | None:
    """Wait until nothing happens any more to a stack or a change set."""
    while (found := look()) and found[status].endswith(("_IN_PROGRESS", "_PENDING")):
        if found[status] == "REVIEW_IN_PROGRESS" or job.answered.wait(0.2):
            break
    return found
