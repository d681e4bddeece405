"""The local cloud: it starts, is shared, dies, comes back, and lets nothing leave the machine."""

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from helpers import cloud, guard, ledger, machine
from helpers.cloud import local

ROOT = "arn:aws:iam::123456789012:root"


@pytest.fixture(scope="module")
def aws(shared_home):
    return cloud.start()


def python(script, ok=True, **environment):
    """Run a script in a fresh Python as from a learner's terminal; return what it prints."""
    return sh([sys.executable, "-c", script], ok, **environment)


def sh(command, ok=True, **environment):
    command = ["bash", "-c", command] if isinstance(command, str) else command
    settings = {**os.environ, **environment}
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr


class Counter:
    """A server on loopback that counts who comes; a place where nobody should."""

    def __enter__(self):
        counter, self.count = self, 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def handle(self):
                counter.count += 1

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


# --- It starts, is shared, dies and comes back


def test_it_answers_boto3_and_the_command_as_the_root_user(aws):
    assert boto3.client("sts").get_caller_identity()["Arn"] == ROOT
    assert json.loads(sh("aws sts get-caller-identity"))["Arn"] == ROOT
    assert aws.endpoint == os.environ["AWS_ENDPOINT_URL"]
    assert aws.endpoint.startswith("http://127.0.0.1:")
    assert (aws.account, aws.region) == ("123456789012", "us-east-1")


def test_starting_again_or_elsewhere_finds_the_same_one(aws, capsys):
    assert cloud.start() == aws == cloud.running()
    assert capsys.readouterr().out == ""
    script = "from helpers import cloud; print(cloud.start().endpoint)"
    assert python(script).strip() == aws.endpoint


def test_two_starters_make_one_and_it_outlives_them(home):
    script = "from helpers import cloud; print(cloud.start().endpoint)"
    run = {"stdout": subprocess.PIPE, "text": True}
    starters = [subprocess.Popen([sys.executable, "-c", script], **run) for _ in range(2)]
    said = [starter.communicate()[0].splitlines() for starter in starters]
    assert said[0][-1] == said[1][-1] == cloud.running().endpoint
    assert sorted(map(len, said)) == [1, 2]  # one says that it has started it
    assert [entry.name for entry in ledger.entries("process")] == [local.NAME]
    assert ledger.down() == [] and cloud.running() is None


def test_a_killed_one_is_replaced_and_the_loss_is_said(home, capsys):
    first = cloud.start()
    boto3.client("s3").create_bucket(Bucket="lost")
    (entry,) = local._entries()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ledger.MARK, entry.id)  # as if the cloud itself had started it
        ledger.spawn("a child", ["sleep", "300"])
    capsys.readouterr()
    os.kill(entry.pid, signal.SIGKILL)
    while entry.alive():
        time.sleep(0.01)
    assert cloud.running() is None
    second = cloud.start()
    assert capsys.readouterr().out == (
        "The local cloud had died, and what was in it is lost. A new one runs, empty.\n"
    )
    assert second == first  # other notebooks find it at the same address
    assert boto3.client("s3").list_buckets()["Buckets"] == []
    assert "a child" not in [one.name for one in ledger.entries()]


def test_two_learners_have_two_clouds(aws, tmp_path):
    boto3.client("s3").create_bucket(Bucket="mine")
    home = {"LAB_HOME": str(tmp_path / "other")}
    script = "from helpers import cloud; print(cloud.start().endpoint); import boto3;"
    theirs = python(script + "print(boto3.client('s3').list_buckets()['Buckets'])", **home)
    *_, endpoint, buckets = theirs.splitlines()
    assert endpoint != aws.endpoint and buckets == "[]"
    with pytest.raises(ClientError, match="InvalidClientTokenId|SignatureDoesNotMatch"):
        boto3.client("sts", endpoint_url=endpoint).get_caller_identity()
    sh([sys.executable, "-m", "helpers", "down"], **home)


def test_a_relative_home_and_motos_own_switches(tmp_path):
    script = (
        "from helpers import cloud, ledger; c = cloud.start(); import urllib.request as u, boto3;"
        "boto3.client('s3').create_bucket(Bucket='still-here')\n"
        "try: u.urlopen(c.endpoint + '/moto-api/reset', data=b'')\n"
        "except u.HTTPError as problem: print(problem.code)\n"
        "print(len(boto3.client('s3').list_buckets()['Buckets']), ledger.down())"
    )
    said = python(f"import os; os.chdir('{tmp_path}'); {script}", LAB_HOME="lab")
    assert said.splitlines()[-2:] == ["404", "1 []"]


def test_what_does_not_start_says_why(home, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(cloud.CloudError, match="did not start. It says: nothing"):
        cloud.start()
    assert ledger.entries("process") == []


def test_the_commands_show_it_and_lead_a_terminal_there(aws, tmp_path):
    run = f"{sys.executable} -m helpers"
    assert local.NAME in sh(f"{run} status")
    runs = json.loads(sh(f"{run} status --json"))["runs"]
    shown = [one for one in runs if one["name"] == local.NAME]
    assert shown[0]["alive"] and shown[0]["facts"]["endpoint"] == aws.endpoint
    assert aws.endpoint in sh(f"{run} up cloud")
    plain = {name: "" for name in os.environ if name.startswith(("AWS_", "LAB_AWS"))}
    nothing = {"LAB_ENGINE": "machine", "LAB_DOCKER_HOST": "unix:///no.sock", **plain}
    line = f'eval "$({run} env)"; aws sts get-caller-identity --query Arn --output text'
    assert ROOT in sh(line, **nothing)


def test_env_never_starts_it_and_guards_all_the_same(home):
    run = f"{sys.executable} -m helpers"
    line = f'eval "$({run} env 2>/dev/null)"; echo "$LAB_AWS.$AWS_ENDPOINT_URL"'
    assert sh(line, LAB_ENGINE="machine", AWS_ENDPOINT_URL="") == "local.\n"
    assert local._entries() == []


# --- Nothing leaves this machine


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.amazonaws.com/bucket",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1@example.com/",
        "http://0.0.0.0:80",
        "http://bucket.localhost:80",  # some resolvers ask the network for it
        "http://2130706433",
        "",
    ],
)
def test_the_guard_refuses(url, monkeypatch):
    monkeypatch.setenv("LAB_AWS", "real")  # alone, that opens nothing
    with pytest.raises(guard.Refused, match="was not asked.*LAB_AWS_ACCOUNT"):
        guard.check(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:5/x", "https://localhost:1", "http://[::1]:80"])
def test_the_guard_lets_loopback_pass(url):
    guard.check(url)


STRAY = """
import boto3
for more in ({}, {"endpoint_url": "https://sqs.eu-west-3.amazonaws.com"}):
    try:
        boto3.client("sqs", region_name="eu-west-1", **more).list_queues()
    except Exception as problem:
        print(problem)
"""


def test_every_python_program_is_guarded_where_the_lab_says_so(aws):
    show = "import sys; print('helpers.guard' in sys.modules)"
    assert sh([sys.executable, "-I", "-c", show]) == "True\n"
    assert sh([sys.executable, "-c", show], LAB_AWS="") == "False\n"


def test_no_client_reaches_anything_else(aws):
    with Counter() as proxy:
        way = {"HTTPS_PROXY": proxy.url, "HTTP_PROXY": proxy.url, "https_proxy": proxy.url}
        stray = {**way, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}
        said = python(STRAY, **stray)
        for region in ("eu-west-1", "eu-west-3"):
            assert f"sqs.{region}.amazonaws.com was not asked" in said
        assert "s3.amazonaws.com was not asked" in sh("aws s3 ls", False, **stray)
        assert "sts.amazonaws.com was not asked" in sh(
            "aws sts get-caller-identity --endpoint-url https://sts.amazonaws.com", False, **way
        )
        assert proxy.count == 0


def test_no_proxy_is_used_that_is_elsewhere(aws):
    client = boto3.client("sqs", config=Config(proxies={"http": "http://proxy.example.com:8080"}))
    os.environ["NO_PROXY"], kept = "", os.environ["NO_PROXY"]
    with pytest.raises(guard.Refused, match="proxy.example.com was not asked"):
        client.list_queues()
    os.environ["NO_PROXY"] = kept


HOSTILE = """
[default]
region = eu-west-1
endpoint_url = {elsewhere}
[profile evil]
region = eu-west-1
endpoint_url = {elsewhere}
credential_process = touch {touched}
"""


def test_an_environment_that_leads_elsewhere_is_neutralised(aws, tmp_path):
    (tmp_path / ".aws").mkdir()
    touched = tmp_path / "touched"
    with Counter() as elsewhere:
        config = HOSTILE.format(elsewhere=elsewhere.url, touched=touched)
        (tmp_path / ".aws/config").write_text(config)
        url = elsewhere.url
        hostile = {
            "HOME": str(tmp_path),
            "AWS_PROFILE": "evil",
            "AWS_DEFAULT_PROFILE": "evil",
            "AWS_CONFIG_FILE": str(tmp_path / ".aws/config"),
            "AWS_ENDPOINT_URL": url,
            "AWS_ENDPOINT_URL_S3": url,
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": url,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / ".aws/config"),
            "AWS_ROLE_ARN": "arn:aws:iam::999999999999:role/real",
            "AWS_SESSION_TOKEN": "real",
            "AWS_CA_BUNDLE": "/nowhere",
            "AWS_USE_FIPS_ENDPOINT": "true",
            "MOTO_ACCOUNT_ID": "999999999999",
            "HTTPS_PROXY": url,
            "http_proxy": url,
        }
        python(
            "import boto3; boto3.setup_default_session(); from helpers import cloud; cloud.start();"
            f"assert boto3.client('sts').get_caller_identity()['Arn'] == '{ROOT}'\n"
            "boto3.client('s3').create_bucket(Bucket='here-and-not-there')\n"
            "import subprocess as s; s.run(['aws', 's3', 'ls', 's3://here-and-not-there'], check=1)"
            "; s.run(['aws', 'configure', 'set', 'region', 'mars-1', '--profile', 'x'], check=1)",
            **hostile,
        )
        assert elsewhere.count == 0 and not touched.exists()
        assert [path.name for path in (tmp_path / ".aws").rglob("*")] == ["config"]
        assert (tmp_path / ".aws/config").read_text() == config
    assert "mars-1" in Path(os.environ["AWS_CONFIG_FILE"]).read_text()


@pytest.mark.skipif(os.geteuid() != 0 or not machine.namespaces().works, reason="needs namespaces")
def test_it_works_in_a_network_without_a_way_out(home):
    script = (
        "from helpers import cloud, ledger; cloud.start(); import boto3, os;"
        "s3 = boto3.client('s3');"
        "s3.create_bucket(Bucket='alone'); print(s3.list_buckets()['Buckets'][0]['Name'],"
        "os.listdir('/sys/class/net')); ledger.down()"
    )
    inside = f'ip link set lo up; exec {sys.executable} -c "{script}"'
    said = sh(["unshare", "--net", "--mount", "sh", "-c", f"mount -t sysfs s /sys; {inside}"])
    assert "alone" in said and "['lo']" in said


# --- A real account, by opt-in only


@pytest.fixture
def account(aws, tmp_path, monkeypatch):
    """A stand-in for AWS, namely the cloud that runs, and a profile that leads there."""
    keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    (tmp_path / "config").write_text(
        f"[profile school]\nregion = eu-west-1\nendpoint_url = {aws.endpoint}\n"
        f"aws_access_key_id = {keys['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {keys['AWS_SECRET_ACCESS_KEY']}\n"
    )
    before = dict(os.environ)
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "lab"))
    os.environ.update(LAB_AWS="real", AWS_CONFIG_FILE=str(tmp_path / "config"))
    yield
    os.environ.clear()
    os.environ.update(before)


def test_the_named_account_is_used_once_it_is_proved(account, capsys):
    os.environ.update(LAB_AWS_PROFILE="school", LAB_AWS_ACCOUNT="123456789012")
    with pytest.raises(guard.Refused):
        guard.check("https://s3.amazonaws.com")
    found = cloud.start("t3.micro")
    assert (found.rung, found.account, found.region) == (
        "real account",
        "123456789012",
        "eu-west-1",
    )
    said = capsys.readouterr().out
    assert "Real account 123456789012, region eu-west-1" in said
    assert "Expected: t3.micro: $0.0104 an hour on AWS" in said
    guard.check("https://s3.amazonaws.com")  # now it may
    assert "AWS_ENDPOINT_URL" not in os.environ and "AWS_ACCESS_KEY_ID" not in os.environ
    assert boto3.client("sts").get_caller_identity()["Arn"] == ROOT
    assert json.loads(sh("aws sts get-caller-identity"))["Arn"] == ROOT
    assert ledger.entries("process") == []


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ({}, "has to be named in full"),
        ({"LAB_AWS_PROFILE": "school"}, "has to be named in full"),
        ({"LAB_AWS_PROFILE": "school", "LAB_AWS_ACCOUNT": "210987654321"}, "not 210987654321"),
        ({"LAB_AWS_PROFILE": "none", "LAB_AWS_ACCOUNT": "123456789012"}, "could not be found"),
    ],
)
def test_another_account_stays_closed(account, named, why):
    os.environ.update(named)
    with pytest.raises(cloud.CloudError, match=why):
        cloud.start()
    with pytest.raises(guard.Refused):
        guard.check("https://s3.amazonaws.com")


# --- What is missing, and what fails

MISSING = [
    ("codepipeline", "list_webhooks", {}),  # json 1.1
    ("codeconnections", "list_hosts", {}),  # json 1.0, and a service that moto lacks
    ("iam", "get_organizations_access_report", {"JobId": "1" * 36}),  # query
    ("ec2", "describe_fast_launch_images", {}),  # ec2
    ("eks", "list_insights", {"clusterName": "c"}),  # rest-json
    ("route53", "list_traffic_policies", {}),  # rest-xml
    ("s3", "get_bucket_request_payment", {"Bucket": "abc"}),
]


@pytest.mark.parametrize(("service", "call", "arguments"), MISSING)
def test_a_missing_call_is_refused_at_once_in_the_services_own_format(
    aws, home_log, service, call, arguments
):
    client = boto3.client(service)
    with pytest.raises(ClientError) as problem:
        getattr(client, call)(**arguments)
    answer = problem.value.response
    assert answer["Error"]["Code"] == "NotImplemented"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert answer["ResponseMetadata"]["RetryAttempts"] == 0
    name = client.meta.method_to_api_mapping[call]
    assert f"does not have {service}:{name}" in answer["Error"]["Message"]
    assert re.search(rf" {service} {name} 501 NotImplemented\n$", home_log.read_text())


@pytest.fixture
def home_log(shared_home):
    return shared_home / "cloud/requests.log"


def test_the_command_says_what_is_missing(aws):
    said = sh("aws ec2 describe-fast-launch-images", ok=False)
    assert "(NotImplemented)" in said and "does not have ec2:DescribeFastLaunchImages" in said


@pytest.mark.filterwarnings("ignore:Exception.Refusal")
def test_a_fault_inside_is_an_answer_too(tmp_path, monkeypatch, capsys):
    from werkzeug.test import Client

    from helpers.cloud import calls

    def fail(call):
        raise KeyError("boom")

    monkeypatch.setattr(calls, "CHECKS", [fail])
    client = Client(calls.Dispatcher(tmp_path))
    key = "Credential=AKIA/20260101/us-east-1/sqs/aws4_request"
    headers = {"Authorization": f"AWS4-HMAC-SHA256 {key}", "X-Amz-Target": "AmazonSQS.ListQueues"}
    answer = client.post("/", headers=headers, content_type="application/x-amz-json-1.0")
    said = answer.get_data(as_text=True)
    assert answer.status_code == 501 and "InternalFailure" in json.loads(said)["__type"]
    assert "sqs:ListQueues: KeyError: 'boom'" in said and str(tmp_path / "server.log") in said
    assert "KeyError: 'boom'" in capsys.readouterr().err


def test_every_call_is_noted_and_no_secret(aws, home_log):
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    boto3.client("ssm").put_parameter(Name="p", Value="hidden-value", Type="SecureString")
    url = boto3.client("s3").generate_presigned_url("list_buckets")
    urllib.request.urlopen(url).read()
    for line in home_log.read_text().splitlines():
        assert re.fullmatch(r"\S+Z (AKIA|ASIA|LSIA|anonymous)\S* \S+ \S+ \d+( \w+)?", line)
    assert re.search("ssm PutParameter 200\n.* s3 ListBuckets 200\n$", home_log.read_text())
    logs = home_log.read_text() + home_log.with_name("server.log").read_text()
    assert secret not in logs and "Signature=" not in logs and "hidden-value" not in logs
    assert home_log.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("service", "unknown", "wrong"),
    [
        ("sts", "InvalidClientTokenId", "SignatureDoesNotMatch"),
        ("ec2", "AuthFailure", "AuthFailure"),
        ("codebuild", "UnrecognizedClientException", "InvalidSignatureException"),
        ("eks", "UnrecognizedClientException", "InvalidSignatureException"),
        ("s3", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
    ],
)
def test_a_call_is_whose_key_has_signed_it(aws, service, unknown, wrong):
    call = {
        "sts": "get_caller_identity",
        "ec2": "describe_vpcs",
        "codebuild": "list_projects",
        "eks": "list_clusters",
        "s3": "list_buckets",
    }[service]
    key = os.environ["AWS_ACCESS_KEY_ID"]
    for code, identity in ((unknown, ("AKIA0000000000000000", "x")), (wrong, (key, "x"))):
        session = boto3.Session(*identity)
        with pytest.raises(ClientError) as problem:
            getattr(session.client(service), call)()
        assert problem.value.response["Error"]["Code"] == code


def test_users_and_sessions_sign_with_their_own_keys(aws):
    iam = boto3.client("iam")
    iam.create_user(UserName="alice")
    key = iam.create_access_key(UserName="alice")["AccessKey"]
    alice = boto3.Session(key["AccessKeyId"], key["SecretAccessKey"])
    assert alice.client("sts").get_caller_identity()["Arn"].endswith(":user/alice")
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": ROOT}}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=document)["Role"]
    assume = {"RoleArn": role["Arn"], "RoleSessionName": "me"}
    may = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role["Arn"]}
    policy = json.dumps({"Version": "2012-10-17", "Statement": may})
    iam.put_user_policy(UserName="alice", PolicyName="read", PolicyDocument=policy)
    given = alice.client("sts").assume_role(**assume)["Credentials"]
    words = [given[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
    arn = boto3.Session(*words).client("sts").get_caller_identity()["Arn"]
    assert arn.endswith(":assumed-role/reader/me")
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        boto3.Session(*words[:2], "other").client("sts").get_caller_identity()
    status = {"AccessKeyId": key["AccessKeyId"], "Status": "Inactive"}
    iam.update_access_key(UserName="alice", **status)
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        alice.client("sts").get_caller_identity()


def test_waiters_ask_every_second_and_wait_as_long(aws):
    waiter = boto3.client("eks").get_waiter("cluster_active").config
    assert (waiter.delay, waiter.max_attempts) == (1, 30 * 40)
    script = (
        "import awscli, botocore.session; session = botocore.session.Session();"
        "client = session.create_client('ec2', region_name='us-east-1');"
        "print(botocore.__file__, client.get_waiter('instance_running').config.delay)"
    )
    assert python(script).strip().endswith("awscli/botocore/__init__.py 1")
