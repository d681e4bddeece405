"""EventBridge: what happens in the cloud is an event, and rules hand events to their targets.

A target is served in a thread of its own, with the permissions of its role, or those that its own
policy gives to EventBridge. If that fails, the cloud's log says why; whoever caused the event does
not notice, as on AWS. Not here: schedules, archives and other targets.

S3 tells of its objects where a bucket's notifications go to EventBridge. The older way, which many
templates take, is a rule for "AWS API Call via CloudTrail": on AWS it needs a trail that logs data
events, here the rule is enough.
"""

from __future__ import annotations

import copy
import datetime
import json
import threading
import traceback
import uuid

from moto.events import urls
from moto.events.models import EventsBackend, Rule, events_backends
from moto.events.utils import EventTemplateParser
from moto.s3 import notifications

from helpers.cloud import permissions, policies
from helpers.cloud.calls import Refusal
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import sts
from helpers.cloud.stacks.api import Caller

TRAIL = "AWS API Call via CloudTrail"
AS_ROLE = ("codepipeline", "codebuild")
TARGETS = (*AS_ROLE, "lambda", "sns", "sqs", "logs", "events")
# What the events of S3 are called in EventBridge, and as calls.
REASONS = {
    "s3:ObjectCreated:Put": "PutObject",
    "s3:ObjectCreated:Post": "POST Object",
    "s3:ObjectCreated:Copy": "CopyObject",
    "s3:ObjectCreated:CompleteMultipartUpload": "CompleteMultipartUpload",
    "s3:ObjectRemoved:Delete": "DeleteObject",
    "s3:ObjectRemoved:DeleteMarkerCreated": "DeleteObject",
}


class Backend(EventsBackend):
    """moto's EventBridge, with rules and targets that the local cloud can serve."""

    _url_module = urls

    def put_rule(self, *args, **given) -> Rule:
        """Make a rule for events."""
        if given.get("scheduled_expression"):
            raise NotImplementedError("schedules: rules act on events only")
        return super().put_rule(*args, **given)

    def put_targets(self, name: str, event_bus_arn: str | None, targets: list[dict]) -> None:
        """Add targets to a rule."""
        for target in targets:
            service = f"{target['Arn']}:::".split(":")[2]
            if service not in TARGETS:
                raise NotImplementedError(f"targets of {service or target['Arn']}")
            if service in AS_ROLE and not target.get("RoleArn"):
                text = f"RoleArn is required for target {target['Arn']}."
                raise Refusal("ValidationException", text)
        super().put_targets(name, event_bus_arn, targets)


def emit(region: str, source: str, kind: str, resources: list[str], detail: dict) -> None:
    """Put an event of a service on the default bus; the rules that match it act at once.

    Args:
        region: where it happened.
        source: the service (``aws.codecommit``).
        kind: its detail type (``CodeCommit Repository State Change``).
        resources: the ARNs of what it is about.
        detail: what happened, in the service's own form.
    """
    event = {"Source": source, "DetailType": kind, "Resources": resources}
    events_backends[ACCOUNT][region].put_events([event | {"Detail": json.dumps(detail)}])


def _send(rule: Rule, event: dict, transform_input: bool = True) -> None:
    """Hand an event to the targets of a rule, if the rule is about such events."""
    if rule.state == "ENABLED" and rule.event_pattern.matches_event(event):
        for target in list(rule.targets):
            work = (rule, target, copy.deepcopy(event))
            threading.Thread(target=_serve, args=work, daemon=True).start()


def _serve(rule: Rule, target: dict, event: dict) -> None:
    service = target["Arn"].split(":")[2]
    try:
        if service in SERVICES:
            SERVICES[service](rule, target, _input(target, event))
        else:
            one = copy.copy(rule)
            one.targets = [target]
            _motos(one, event)
    except Exception as problem:
        print(f"\nThe rule {rule.name} could not reach its target {target['Arn']}: {problem}")
        if not isinstance(problem, Refusal):
            traceback.print_exc()


def _input(target: dict, event: dict):
    """Return what a target is given: the event, a part of it, or something else."""
    if "Input" in target:
        return json.loads(target["Input"])
    when = datetime.datetime.fromtimestamp(float(event["time"]), datetime.UTC)
    event = event | {"time": when.strftime("%Y-%m-%dT%H:%M:%SZ")}
    transformer, ingested = target.get("InputTransformer"), event.pop("ingestion-time", 0)
    if transformer:
        template, paths = transformer["InputTemplate"], transformer.get("InputPathsMap", {})
        return EventTemplateParser.parse(template, paths, event | {"ingestion-time": ingested})
    if path := target.get("InputPath"):
        for name in path.split(".")[1:]:
            event = event[name]
    return event


def _codepipeline(rule: Rule, target: dict, given) -> None:
    from helpers.cloud.services import codepipeline

    key, *_ = sts.assume(target["RoleArn"], "events")
    permissions.require(key, "codepipeline:StartPipelineExecution", target["Arn"])
    *_, region, _, name = target["Arn"].split(":")
    codepipeline.find(region, name).start("CloudWatchEvent", rule.arn)


def _codebuild(rule: Rule, target: dict, given) -> None:
    call = Caller(*sts.assume(target["RoleArn"], "events"), rule.region_name)
    more = given if "Input" in target or "InputTransformer" in target else {}
    call("codebuild", "StartBuild", {**more, "projectName": target["Arn"].rpartition("/")[2]})


def _lambda(rule: Rule, target: dict, given) -> None:
    from moto.awslambda.models import lambda_backends

    backend = lambda_backends[ACCOUNT][target["Arn"].split(":")[3]]
    statements = backend.get_function(target["Arn"]).policy.statements
    _check(rule, target, "lambda:InvokeFunction", statements)
    headers = {"X-Amz-Invocation-Type": "Event"}
    backend.invoke(target["Arn"], None, json.dumps(given), headers, {})


def _sns(rule: Rule, target: dict, given) -> None:
    from moto.sns.models import sns_backends

    backend = sns_backends[ACCOUNT][target["Arn"].split(":")[3]]
    statements = json.loads(backend.get_topic(target["Arn"]).policy)["Statement"]
    _check(rule, target, "sns:Publish", statements)
    backend.publish(given if isinstance(given, str) else json.dumps(given), arn=target["Arn"])


def _check(rule: Rule, target: dict, action: str, statements: list[dict]) -> None:
    """Refuse to reach a target whose own policy does not let EventBridge in."""
    about = {"aws:sourcearn": rule.arn, "aws:sourceaccount": ACCOUNT}
    facts = (action, target["Arn"], about, {"events.amazonaws.com"})
    if policies.verdict([{"Statement": statements}], *facts) != "Allow":
        text = f"its policy does not allow {action} to events.amazonaws.com"
        raise Refusal("AccessDeniedException", text)


def _told_by_s3(account: str, bucket, name: str, key) -> None:
    """Tell EventBridge of an object, as its bucket's notifications want it."""
    about = {"key": key.name, "size": key.size, "etag": key.etag.strip('"')}
    if bucket.is_versioned:
        about["version-id"] = key.version_id
    about["sequencer"] = uuid.uuid4().hex[:16].upper()
    detail = {"version": "0", "bucket": {"name": bucket.name}, "object": about}
    detail |= {"request-id": uuid.uuid4().hex[:16].upper(), "requester": account}
    detail |= {"source-ip-address": "127.0.0.1", "reason": REASONS.get(name, name)}
    kind = notifications._detail_type(name)
    emit(bucket.region_name, "aws.s3", kind, [bucket.arn], detail)


def _told_by_trail(account: str, name: str, bucket, key) -> None:
    """Tell rules that ask for calls in a trail of an object that was written; then do the rest."""
    what = REASONS.get(name)
    backend = events_backends[account][bucket.region_name]
    rules = backend.event_buses["default"].rules.values()
    asking = [
        one for one in rules if TRAIL in one.event_pattern.get_pattern().get("detail-type", ())
    ]
    if what and asking:
        detail = {"eventVersion": "1.08", "eventSource": "s3.amazonaws.com", "eventName": what}
        detail |= {"awsRegion": bucket.region_name, "eventTime": _now().isoformat()}
        detail["requestParameters"] = {"bucketName": bucket.name, "key": key.name}
        arns = [f"{bucket.arn}/{key.name}", bucket.arn]
        detail["resources"] = [{"ARN": arn} for arn in arns]
        event = {"version": "0", "id": str(uuid.uuid4()), "detail-type": TRAIL, "source": "aws.s3"}
        event |= {"account": account, "time": _now().timestamp(), "region": bucket.region_name}
        event |= {"resources": [], "detail": detail, "ingestion-time": _now().timestamp()}
        for one in asking:
            one.send_to_targets(event)
    _motos_s3(account, name, bucket, key)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


SERVICES = {"codepipeline": _codepipeline, "codebuild": _codebuild, "lambda": _lambda, "sns": _sns}
_motos, _motos_s3 = Rule.send_to_targets, notifications.send_event
Rule.send_to_targets = _send
notifications.send_event = _told_by_trail
notifications._send_event_bridge_message = _told_by_s3
events_backends.backend = Backend
