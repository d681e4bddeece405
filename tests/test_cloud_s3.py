"""S3 on the local cloud, by the aws command and by boto3, with the state that it leaves."""

import json
import subprocess
import urllib.error
import urllib.request

import boto3
import pytest
from asking import refused
from botocore.config import Config
from waiting import received, until

from helpers import cloud
from helpers.cloud import policies


@pytest.fixture(scope="module")
def aws(shared_home):
    return cloud.start()


@pytest.fixture
def s3(aws):
    return boto3.client("s3")


@pytest.fixture
def bucket(s3, request):
    name = f"test-{abs(hash(request.node.name))}"
    s3.create_bucket(Bucket=name)
    return name


def sh(script, folder, ok=True):
    """Run a shell script that stops at the first command that fails; return what it prints."""
    done = subprocess.run(["bash", "-ec", script], cwd=folder, capture_output=True, text=True)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr


def fetch(url, **request):
    """Fetch a URL as a browser does, and return status and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **request)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read()


def test_the_command_makes_copies_syncs_and_removes(s3, tmp_path):
    (tmp_path / "site/sub").mkdir(parents=True)
    (tmp_path / "site/index.html").write_text("hello")
    (tmp_path / "site/sub/style.css").write_text("{}")
    (tmp_path / "big").write_bytes(bytes(9 << 20))  # in parts
    sh(
        "aws s3 mb s3://by-hand; aws s3 cp big s3://by-hand --no-progress;"
        "aws s3 sync site s3://by-hand/site; rm site/sub/style.css; echo more >> site/index.html;"
        "aws s3 sync site s3://by-hand/site --delete;"
        "aws s3 cp s3://by-hand/big copy --no-progress; cmp big copy",
        tmp_path,
    )
    kept = {one["Key"]: one["Size"] for one in s3.list_objects_v2(Bucket="by-hand")["Contents"]}
    assert kept == {"big": 9 << 20, "site/index.html": 10}
    assert "BucketNotEmpty" in sh("aws s3 rb s3://by-hand", tmp_path, ok=False)
    sh("aws s3 rb s3://by-hand --force", tmp_path)
    refused("404", s3.head_bucket, Bucket="by-hand")


def test_boto3_transfers_files(s3, bucket, tmp_path):
    (tmp_path / "big").write_bytes(b"x" * (9 << 20))
    s3.upload_file(str(tmp_path / "big"), bucket, "a b/ü+x")
    s3.download_file(bucket, "a b/ü+x", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "big").read_bytes()
    s3.copy_object(Bucket=bucket, Key="again", CopySource={"Bucket": bucket, "Key": "a b/ü+x"})
    assert s3.head_object(Bucket=bucket, Key="again")["ContentLength"] == 9 << 20
    refused("NoSuchBucket", s3.list_objects_v2, Bucket="no-such-bucket")
    refused("NoSuchKey", s3.get_object, Bucket=bucket, Key="nothing")


def test_versions_come_back(s3, bucket):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"one")["VersionId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"two")
    marker = s3.delete_object(Bucket=bucket, Key="k")
    refused("NoSuchKey", s3.get_object, Bucket=bucket, Key="k")
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=first)["Body"].read() == b"one"
    s3.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"two"


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_urls_work_for_anybody_until_they_end(aws, bucket, version, monkeypatch):
    s3 = boto3.client("s3", config=Config(signature_version=version))
    where = {"Bucket": bucket, "Key": "a b/ü+x"}
    put = s3.generate_presigned_url("put_object", Params=where)
    assert fetch(put, data=b"hi", method="PUT", headers={"Content-Type": ""})[0] == 200
    get = s3.generate_presigned_url("get_object", Params=where)
    assert fetch(get) == (200, b"hi")
    for changed in (get.replace("a%20b", "a%20c"), get.replace("Expires=", "Expires=9"), get + "x"):
        status, body = fetch(changed)
        assert status == 403 and b"SignatureDoesNotMatch" in body
    late = s3.generate_presigned_url("get_object", Params=where, ExpiresIn=-1)
    status, body = fetch(late)
    assert status == 403 and b"Request has expired" in body


def test_the_command_presigns_too(s3, bucket, tmp_path):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hi")
    assert fetch(sh(f"aws s3 presign s3://{bucket}/k", tmp_path).strip()) == (200, b"hi")


def statement(bucket, effect="Allow", principal="*", action="s3:GetObject", key="/*", **more):
    one = {"Effect": effect, "Principal": principal, "Action": action, **more}
    one["Resource"] = f"arn:aws:s3:::{bucket}{key}"
    return json.dumps({"Version": "2012-10-17", "Statement": [one]})


def test_a_new_bucket_is_closed_until_it_is_opened_in_two_steps(aws, s3, bucket):
    s3.put_object(Bucket=bucket, Key="open/k", Body=b"hi")
    s3.put_object(Bucket=bucket, Key="k", Body=b"hi")
    url = f"{aws.endpoint}/{bucket}"
    assert fetch(f"{url}/open/k")[0] == fetch(url)[0] == fetch(aws.endpoint)[0] == 403
    assert fetch(f"{aws.endpoint}/by-nobody", method="PUT")[0] == 403
    public = statement(bucket, key="/open/*")
    assert "BlockPublicPolicy" in refused(
        "AccessDenied", s3.put_bucket_policy, Bucket=bucket, Policy=public
    )
    s3.delete_public_access_block(Bucket=bucket)
    s3.put_bucket_policy(Bucket=bucket, Policy=public)
    assert fetch(f"{url}/open/k") == (200, b"hi")
    status, body = fetch(f"{url}/k")
    assert status == 403 and b"<Code>AccessDenied</Code>" in body
    assert fetch(url)[0] == 403  # nor the list of what is in it
    refused(
        "AccessControlListNotSupported",
        s3.put_object,
        Bucket=bucket,
        Key="x",
        Body=b"",
        ACL="public-read",
    )


def test_a_policy_means_those_whom_it_names(aws, s3, bucket, tmp_path):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hi")
    alice = "arn:aws:iam::123456789012:user/alice"
    s3.put_bucket_policy(Bucket=bucket, Policy=statement(bucket, principal={"AWS": alice}))
    assert fetch(f"{aws.endpoint}/{bucket}/k")[0] == 403
    s3.put_bucket_policy(Bucket=bucket, Policy=statement(bucket, effect="Deny"))
    assert "explicit deny" in refused("AccessDenied", s3.get_object, Bucket=bucket, Key="k")
    assert "AccessDenied" in sh(
        f"aws s3api get-object --bucket {bucket} --key k out", tmp_path, ok=False
    )
    encrypted = {"Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    everything = statement(bucket, "Deny", action="s3:*", **encrypted)
    s3.put_bucket_policy(Bucket=bucket, Policy=everything)  # a condition that does not hold
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"hi"
    s3.put_bucket_policy(Bucket=bucket, Policy=statement(bucket, "Deny", action="s3:*", key=""))
    refused("AccessDenied", s3.list_objects_v2, Bucket=bucket)
    s3.delete_bucket_policy(Bucket=bucket)  # the root user is never locked out
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


def test_a_policy_that_is_none_is_refused(s3, bucket):
    for policy in ("{", '{"Version": "2012-10-17"}', statement("other")):
        refused("MalformedPolicy", s3.put_bucket_policy, Bucket=bucket, Policy=policy)


def test_events_reach_eventbridge_and_its_rules(s3, bucket):
    events, sqs = boto3.client("events"), boto3.client("sqs")
    url = sqs.create_queue(QueueName="rules")["QueueUrl"]
    detail = {"bucket": {"name": [bucket]}}
    pattern = {"source": ["aws.s3"], "detail-type": ["Object Created"], "detail": detail}
    events.put_rule(Name="new-objects", EventPattern=json.dumps(pattern))
    target = {"Id": "1", "Arn": "arn:aws:sqs:us-east-1:123456789012:rules"}
    events.put_targets(Rule="new-objects", Targets=[target])
    s3.put_object(Bucket=bucket, Key="unheard", Body=b"")  # EventBridge has to be switched on
    on = {"EventBridgeConfiguration": {}}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=on)
    assert "EventBridgeConfiguration" in s3.get_bucket_notification_configuration(Bucket=bucket)
    heard = []

    def hears(key):
        heard.extend(one["detail"]["object"]["key"] for one in received(url))
        return key in heard

    for key in ("heard", "last"):  # by then a message about the first one would be there
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
        until(lambda key=key: hears(key))
    assert heard == ["heard", "last"]


QUEUE = "arn:aws:sqs:us-east-1:123456789012:rules"
TO_QUEUE = {"QueueConfigurations": [{"QueueArn": QUEUE, "Events": ["s3:ObjectCreated:*"]}]}


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("get_bucket_request_payment", {}),
        ("list_bucket_metrics_configurations", {}),
        ("put_bucket_request_payment", {"RequestPaymentConfiguration": {"Payer": "Requester"}}),
        ("get_object_retention", {"Key": "k"}),
        ("put_bucket_notification_configuration", {"NotificationConfiguration": TO_QUEUE}),
    ],
)
def test_what_is_not_here_is_refused(s3, bucket, call, arguments):
    refused("NotImplemented", getattr(s3, call), Bucket=bucket, **arguments)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ({"Action": "s3:Get*", "Resource": "*"}, "Allow"),
        ({"Action": "S3:getobject", "Resource": "arn:aws:s3:::b/a*"}, "Allow"),
        ({"Action": "s3:Get*", "Resource": "arn:aws:s3:::b"}, ""),
        ({"Action": ["s3:PutObject"], "Resource": "*"}, ""),
        ({"NotAction": "s3:PutObject", "Resource": "*"}, "Allow"),
        ({"Action": "*", "NotResource": "arn:aws:s3:::b/*"}, ""),
        ({"Action": "*", "Resource": "arn:aws:s3:::b/${aws:username}/*"}, "Allow"),
        ({"Effect": "Deny", "Action": "*", "Resource": "*"}, "Deny"),
    ]
    + [
        ({"Action": "*", "Resource": "*", "Condition": condition}, said)
        for condition, said in [
            ({"StringEquals": {"aws:username": ["bob", "alice"]}}, "Allow"),
            ({"StringNotEquals": {"aws:username": ["bob", "alice"]}}, ""),
            ({"StringLike": {"AWS:UserName": "al*"}}, "Allow"),
            ({"StringEquals": {"no:such": "x"}}, ""),
            ({"StringNotEquals": {"no:such": "x"}}, "Allow"),
            ({"StringEqualsIfExists": {"no:such": "x"}}, "Allow"),
            ({"Null": {"no:such": "true"}}, "Allow"),
            ({"Bool": {"aws:securetransport": "TRUE"}}, "Allow"),
            ({"IpAddress": {"aws:sourceip": "127.0.0.0/8"}}, "Allow"),
            ({"NotIpAddress": {"aws:sourceip": "127.0.0.0/8"}}, ""),
            ({"NumericLessThan": {"s3:max-keys": "10"}}, "Allow"),
            ({"DateGreaterThan": {"aws:currenttime": "2020-01-01T00:00:00Z"}}, "Allow"),
            ({"ForAllValues:StringEquals": {"aws:tagkeys": ["a", "b"]}}, ""),
            ({"ForAnyValue:StringEquals": {"aws:tagkeys": ["a", "b"]}}, "Allow"),
        ]
    ],
)
def test_the_language_of_policies(statement, said):
    context = {
        "aws:username": "alice",
        "aws:securetransport": "true",
        "aws:sourceip": "127.0.0.1",
        "s3:max-keys": "9",
        "aws:currenttime": "2026-01-01T00:00:00Z",
        "aws:tagkeys": ["a", "c"],
    }
    document = {"Statement": {"Effect": "Allow", **statement}}
    resource = "arn:aws:s3:::b/alice/k"
    assert policies.verdict([document], "s3:GetObject", resource, context) == said
