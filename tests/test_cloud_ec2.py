"""EC2 on the local cloud: what it tells of instances is true of the machines that run."""

import base64
import gzip
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess

import boto3
import pytest
import waiting
from asking import refused
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import until

from helpers import cloud, ledger, machine, vm
from helpers.cloud import costs, local

pytestmark = pytest.mark.skipif(not machine.qemu(), reason="needs QEMU")

BUSYBOX = "ami-0b5b0c5b0c5b00001"
SERVER = "ami-0b5b0c5b0c5b00002"
LATEST = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
WEB = """#!/bin/sh
mkdir -p /www
echo "this is $(hostname)" > /www/index.html
echo first boot >> /root/boots
httpd -p 8080 -h /www
httpd -p 8081 -h /www
"""
ANY = "0.0.0.0/0"


@pytest.fixture(scope="module")
def aws(shared_home):
    return cloud.start()


@pytest.fixture(scope="module")
def ec2(aws):
    return boto3.client("ec2")


def sh(command, ok=True):
    done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout if ok else done.stderr


def launch(ec2, user_data="", ami=BUSYBOX, kind="t2.micro", count=1, wait=True, **more):
    count = {"MinCount": count, "MaxCount": count}
    answer = ec2.run_instances(ImageId=ami, InstanceType=kind, UserData=user_data, **count, **more)
    found = [one["InstanceId"] for one in answer["Instances"]]
    assert {one["State"]["Name"] for one in answer["Instances"]} == {"pending"}
    if wait:
        ec2.get_waiter("instance_running").wait(InstanceIds=found)
    return found


def facts(ec2, instance):
    (found,) = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    return found["Instances"][0]


def address(ec2, instance):
    return facts(ec2, instance)["PublicIpAddress"]


def state(ec2, instance):
    return facts(ec2, instance)["State"]["Name"]


def page(place):
    return waiting.page(f"http://{place}/")


def closed(ip, port):
    """Whether a connection is refused, at once, as nobody listens there."""
    with socket.socket() as trial:
        trial.settimeout(5)
        try:
            trial.connect((ip, port))
        except ConnectionRefusedError:
            return True
        return False


def console(ec2, instance):
    return ec2.get_console_output(InstanceId=instance)["Output"]


def said(ec2, instance, text):
    """The console, once it has a text."""
    return until(lambda: text in (found := console(ec2, instance)) and found)


def group(ec2, name, **more):
    return ec2.create_security_group(GroupName=name, Description=name, **more)["GroupId"]


def rule(group, port, cidr=ANY, last=None):
    rule = {"IpProtocol": "tcp", "FromPort": port, "ToPort": last or port}
    return {"GroupId": group, "IpPermissions": [rule | {"IpRanges": [{"CidrIp": cidr}]}]}


def terminate(ec2, *instances):
    ec2.terminate_instances(InstanceIds=list(instances))
    ec2.get_waiter("instance_terminated").wait(InstanceIds=list(instances))


def machine_of(instance):
    """The machine that an instance stands for."""
    (found,) = [one for one in vm.running() if one.name == instance]
    return found


@pytest.fixture(scope="module")
def web(ec2):
    """Two web servers on the same port, in a group that lets nobody in."""
    closed_group = group(ec2, "web")
    return closed_group, launch(ec2, WEB, count=2, SecurityGroupIds=[closed_group])


# --- What there is to launch, and what is refused (no machine starts)


def test_images_are_ours_and_templates_find_them(ec2):
    for owners in (["self"], ["amazon"], []):
        found = ec2.describe_images(Owners=owners)["Images"]
        assert {one["ImageId"] for one in found} == {BUSYBOX, SERVER}
    ask = "aws ec2 describe-images --filters Name=name,Values='al2023-ami-2023*-x86_64'"
    assert sh(f"{ask} --query Images[].ImageId --output text").split() == [SERVER]
    ssm = boto3.client("ssm")
    assert ssm.get_parameter(Name=LATEST)["Parameter"]["Value"] == SERVER
    refused("ParameterNotFound", ssm.get_parameter, Name=LATEST.replace("x86_64", "arm64"))


WRONG = [
    ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound", r"\[ami-0123456789abcdef0\]'"),
    ({"ImageId": "debian"}, "InvalidAMIID.Malformed", 'expecting "ami-...'),
    ({"InstanceType": "t9.micro"}, "InvalidParameterValue", "'t9.micro' for InstanceType"),
    ({"InstanceType": "t4g.micro"}, "InvalidParameterValue", "'arm64' of the specified instance"),
    ({"KeyName": "lost"}, "InvalidKeyPair.NotFound", "The key pair 'lost' does not exist"),
    ({"SecurityGroupIds": ["sg-01234567"]}, "InvalidGroup.NotFound", "'sg-01234567' does not"),
    ({"SecurityGroups": ["nobody"]}, "InvalidGroup.NotFound", "'nobody' does not exist"),
    ({"SubnetId": "subnet-01234567"}, "InvalidSubnetID.NotFound", "subnet-01234567"),
    ({"UserData": "#" * 20000}, "InvalidParameterValue", "limited to 16384 bytes"),
    ({"MinCount": 3}, "InvalidParameterValue", "minCount"),
    ({"InstanceMarketOptions": {"MarketType": "spot"}}, "NotImplemented", "spot"),
    ({"HibernationOptions": {"Configured": True}}, "NotImplemented", "memory is not kept"),
    (
        {"BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1}}]},
        "NotImplemented",
        "root volume only",
    ),
    ({"LaunchTemplate": {"LaunchTemplateName": "none"}}, "NotImplemented", "without a template"),
]


@pytest.mark.parametrize(("change", "code", "text"), WRONG, ids=lambda value: str(value)[:40])
def test_what_cannot_be_launched_is_refused_in_the_words_of_aws(ec2, change, code, text):
    good = {"ImageId": BUSYBOX, "InstanceType": "t2.micro", "MinCount": 1, "MaxCount": 1}
    with pytest.raises(ClientError, match=text) as problem:
        ec2.run_instances(**good | change)
    assert problem.value.response["Error"]["Code"].startswith(code)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("describe-instances --instance-ids i-0123456789abcdef0", "InvalidInstanceID.NotFound"),
        ("describe-instances --instance-ids web", "InvalidInstanceID.Malformed"),
        ("stop-instances --instance-ids i-0123456789abcdef0", "InvalidInstanceID.NotFound"),
        ("get-console-output --instance-id i-0123456789abcdef0", "InvalidInstanceID.NotFound"),
        (
            "attach-volume --volume-id vol-01234567 --device /dev/sdf --instance-id i-01234567",
            "NotImplemented",
        ),
        ("request-spot-instances", "NotImplemented"),
        ("stop-instances --hibernate --instance-ids i-0123456789abcdef0", "NotImplemented"),
    ],
)
def test_calls_about_what_is_not_there(aws, call, code):
    assert f"({code})" in sh(f"aws ec2 {call}", ok=False)


def test_a_rule_for_too_many_ports_is_refused_and_not_kept(ec2):
    many = group(ec2, "many")
    text = refused("NotImplemented", ec2.authorize_security_group_ingress, **rule(many, 1, last=99))
    assert "64 ports" in text
    (found,) = ec2.describe_security_groups(GroupIds=[many])["SecurityGroups"]
    assert found["IpPermissions"] == []
    ec2.authorize_security_group_ingress(**rule(many, 1, "10.0.0.0/8", last=99))  # not for us


# --- Networks


def test_rules_decide_who_answers_while_the_servers_run(ec2, web):
    closed_group, instances = web
    places = [address(ec2, one) for one in instances]
    assert len(set(places)) == 2
    assert all(closed(ip, 8080) for ip in places)
    ec2.authorize_security_group_ingress(**rule(closed_group, 8080))
    for one, ip in zip(instances, places, strict=True):
        assert until(lambda ip=ip: page(f"{ip}:8080")) == f"this is {one}\n"
        assert facts(ec2, one)["PublicDnsName"] == ip
        assert closed(ip, 8081)
    ec2.revoke_security_group_ingress(**rule(closed_group, 8080))
    assert all(closed(ip, 8080) for ip in places)
    # A range, for the learner alone, by the command.
    ports = f"--group-id {closed_group} --protocol tcp --port 8080-8081"
    sh(f"aws ec2 authorize-security-group-ingress {ports} --cidr 127.0.0.1/32")
    assert all(page(f"{ip}:{port}") for ip in places for port in (8080, 8081))
    sh(f"aws ec2 revoke-security-group-ingress {ports} --cidr 127.0.0.1/32")
    sh(f"aws ec2 authorize-security-group-ingress {ports} --cidr 192.0.2.0/24")  # others
    assert all(closed(ip, port) for ip in places for port in (8080, 8081))


def test_another_group_opens_other_ports(ec2, web):
    closed_group, (one, other) = web
    opening = group(ec2, "open")
    ec2.authorize_security_group_ingress(**rule(opening, 8080))
    ec2.modify_instance_attribute(InstanceId=one, Groups=[opening])
    assert [found["GroupId"] for found in facts(ec2, one)["SecurityGroups"]] == [opening]
    assert page(f"{address(ec2, one)}:8080") == f"this is {one}\n"
    assert closed(address(ec2, other), 8080)
    refused("DependencyViolation", ec2.delete_security_group, GroupId=opening)
    refused("InvalidGroup.NotFound", ec2.modify_instance_attribute, InstanceId=one, Groups=["sg-1"])
    ec2.modify_instance_attribute(InstanceId=one, Groups=[closed_group])
    assert closed(address(ec2, one), 8080)
    ec2.delete_security_group(GroupId=opening)


def test_a_port_that_is_taken_here_answers_at_another_and_says_so(ec2, web):
    closed_group, (one, _) = web
    ip = address(ec2, one)
    with socket.create_server((ip, 8080)):
        ec2.authorize_security_group_ingress(**rule(closed_group, 8080))
        tags = {tag["Key"]: tag["Value"] for tag in facts(ec2, one)["Tags"]}
        assert tags["lab:port-8080"] == f"{ip}:16080"
        assert page(tags["lab:port-8080"]) == f"this is {one}\n"
        assert f"it answers at {ip}:16080" in console(ec2, one)
        ec2.revoke_security_group_ingress(**rule(closed_group, 8080))
    assert "Tags" not in facts(ec2, one)
    assert closed(ip, 16080)


def test_an_elastic_address_answers(ec2, web):
    closed_group, (one, _) = web
    ec2.authorize_security_group_ingress(**rule(closed_group, 8080))
    before, elastic = address(ec2, one), ec2.allocate_address()
    ec2.associate_address(InstanceId=one, AllocationId=elastic["AllocationId"])
    assert address(ec2, one) == elastic["PublicIp"] != before
    assert page(f"{elastic['PublicIp']}:8080") == f"this is {one}\n"
    assert closed(before, 8080)
    ec2.release_address(AllocationId=elastic["AllocationId"])
    assert closed(elastic["PublicIp"], 8080)
    assert page(f"{address(ec2, one)}:8080") == f"this is {one}\n"
    ec2.revoke_security_group_ingress(**rule(closed_group, 8080))


def test_in_a_network_without_a_way_in_nothing_answers(ec2):
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    inside = group(ec2, "inside", VpcId=vpc)
    ec2.authorize_security_group_ingress(**rule(inside, 8080))
    nic = {"DeviceIndex": 0, "SubnetId": subnet, "Groups": [inside]}
    nics = [nic | {"AssociatePublicIpAddress": True}]
    (one,) = launch(ec2, WEB, NetworkInterfaces=nics)
    ip = address(ec2, one)
    assert [found["GroupId"] for found in facts(ec2, one)["SecurityGroups"]] == [inside]
    assert facts(ec2, one)["PrivateIpAddress"].startswith("10.0.1.")
    assert closed(ip, 8080)
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(VpcId=vpc, InternetGatewayId=gateway)
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock=ANY, GatewayId=gateway)
    assert closed(ip, 8080)
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    assert until(lambda: page(f"{ip}:8080"))
    terminate(ec2, one)


# --- A life


def test_the_console_and_the_status_are_its_own(ec2, web):
    _, (one, other) = web
    text = said(ec2, one, "user data ended with status 0")
    assert "userspace after" in text and one not in console(ec2, other)
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=[one])
    attribute = ec2.describe_instance_attribute(InstanceId=one, Attribute="userData")
    assert base64.b64decode(attribute["UserData"]["Value"]).decode() == WEB


def test_files_survive_a_reboot_and_a_stop_and_user_data_runs_once(ec2, web):
    _, (one, _) = web
    guest = machine_of(one)
    guest.run("echo kept > '/root/a file'; rm /bin/vi; sleep 300 &", check=True)
    before = address(ec2, one)
    (root,) = facts(ec2, one)["BlockDeviceMappings"]
    assert root["DeviceName"] == facts(ec2, one)["RootDeviceName"] == "/dev/xvda"
    ec2.reboot_instances(InstanceIds=[one])
    assert state(ec2, one) == "running"
    until(lambda: console(ec2, one).count("userspace after") == 2)
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=[one])
    assert address(ec2, one) == before

    refused(
        "IncorrectInstanceState",
        ec2.modify_instance_attribute,
        InstanceId=one,
        InstanceType={"Value": "t2.small"},
    )
    change = ec2.stop_instances(InstanceIds=[one])["StoppingInstances"][0]
    assert (change["PreviousState"]["Name"], change["InstanceId"]) == ("running", one)
    ec2.get_waiter("instance_stopped").wait(InstanceIds=[one])
    assert "PublicIpAddress" not in facts(ec2, one)
    ec2.modify_instance_attribute(InstanceId=one, UserData={"Value": b"#!/bin/sh\n"})
    attribute = ec2.describe_instance_attribute(InstanceId=one, Attribute="userData")
    assert base64.b64decode(attribute["UserData"]["Value"]) == b"#!/bin/sh\n"
    assert facts(ec2, one)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert one not in [other.name for other in vm.running()]
    assert "user data ended" in console(ec2, one)
    refused("IncorrectInstanceState", ec2.reboot_instances, InstanceIds=[one])
    ec2.modify_instance_attribute(InstanceId=one, InstanceType={"Value": "t2.small"})

    ec2.start_instances(InstanceIds=[one])
    ec2.get_waiter("instance_running").wait(InstanceIds=[one])
    guest = machine_of(one)
    assert guest.settings.memory > 1024 or machine.facts()["memory_free_mb"] < 3000
    seen = guest.run("cat '/root/a file' /root/boots; ls /bin/vi; ps").stdout
    assert seen.startswith("kept\nfirst boot\nPID"), seen
    assert "httpd" not in seen and "sleep 300" not in seen


def test_a_machine_that_dies_is_told_of(ec2, web):
    _, (one, other) = web
    machine_of(other).run(
        "echo kept > /root/note; (sleep 0.2; reboot) &"
    )  # as one does in a terminal
    guest = machine_of(one)
    guest.run("echo kept > /root/note; sync", check=True)
    os.kill(guest.pid, signal.SIGKILL)
    until(lambda: state(ec2, one) == "stopped")
    assert facts(ec2, one)["StateReason"]["Code"] == "Server.InternalError"
    assert "ended unexpectedly" in facts(ec2, one)["StateReason"]["Message"]
    assert ec2.describe_instance_status(InstanceIds=[one])["InstanceStatuses"] == []
    until(lambda: console(ec2, other).count("userspace after") == 2)
    assert state(ec2, other) == "running"
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=[other])
    with pytest.raises(vm.VMError, match="reboot: Power down"):
        machine_of(other).run("poweroff")
    until(lambda: state(ec2, other) == "stopped")
    assert facts(ec2, other)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    ec2.start_instances(InstanceIds=[one, other])
    ec2.get_waiter("instance_running").wait(InstanceIds=[one, other])
    for each in (one, other):
        assert machine_of(each).run("cat /root/note /root/boots").stdout == "kept\nfirst boot\n"
    terminate(ec2, one, other)


def test_user_data_that_is_no_script_or_fails_says_so_and_nothing_is_left(ec2):
    cloud_config, broken, packed = (
        launch(ec2, text, kind=kind, wait=False)[0]
        for text, kind in (
            ("#cloud-config\npackages: [httpd]\n", "t2.micro"),
            ("#!/bin/sh\nnohup echo before\nnonsense\nexit 3\n", "t2.micro"),
            (gzip.compress(b"#!/bin/sh\necho unpacked\n"), "m5.24xlarge"),
        )
    )
    found = [cloud_config, broken, packed]
    ec2.get_waiter("instance_running").wait(InstanceIds=found)
    assert "first line begins with #!" in said(ec2, cloud_config, "user data was not run")
    assert "nohup: not found" not in console(ec2, broken)
    assert "nonsense: not found" in said(ec2, broken, "user data ended with status 3")
    capped = "m5.24xlarge has 96 vCPU and 393216 MiB; this machine gives"
    assert capped in console(ec2, packed)
    assert "unpacked" in said(ec2, packed, "ended with status 0")
    assert state(ec2, broken) == "running"
    folders = [machine_of(one).folder for one in found]
    attached = [{"Name": "attachment.instance-id", "Values": found}]
    volumes = ec2.describe_volumes(Filters=attached)["Volumes"]
    assert [(one["VolumeType"], one["Size"]) for one in volumes] == [("gp3", 8)] * 3
    assert {item.name: item.hour for item in costs.items()}[broken] == costs.price("t2.micro")
    terminate(ec2, *found)
    gone = next(item for item in costs.items() if item.name == broken)
    assert gone.hour == 0 and gone.spent > 0
    assert not any(folder.exists() for folder in folders)
    assert not {entry.name.split()[-1] for entry in ledger.entries()} & set(found)
    assert ec2.describe_volumes(Filters=attached)["Volumes"] == []
    assert ec2.describe_network_interfaces(Filters=attached)["NetworkInterfaces"] == []
    assert facts(ec2, broken)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    refused("IncorrectInstanceState", ec2.start_instances, InstanceIds=[broken])


def test_an_instance_reads_from_s3_by_signed_urls_and_reaches_nothing_else(aws, ec2):
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="from-instances")
    data = os.urandom(3_000_000)
    s3.put_object(Bucket="from-instances", Key="big", Body=data)
    at = {"Bucket": "from-instances", "Key": "big"}
    url = s3.generate_presigned_url("get_object", Params=at)
    port = url.split("/")[2].partition(":")[2]
    (found,) = launch(
        ec2,
        f"""#!/bin/sh
for copy in 1 2 3; do wget -q -O $copy '{url}' & done
wait $(jobs -p)
md5sum 1 2 3
wget -O unsigned {url.partition("?")[0]}
nc -w 3 10.0.2.2 {port} < /dev/null || echo "no way past the cloud"
echo "the user data is through"
""",
    )
    text = said(ec2, found, "the user data is through")
    assert text.count(hashlib.md5(data).hexdigest()) == 3
    assert "403 FORBIDDEN" in text
    assert "no way past the cloud" in text
    terminate(ec2, found)


def test_one_that_is_terminated_while_it_boots_never_runs(ec2):
    (one,) = launch(ec2, wait=False)
    until(lambda: one in [other.name for other in vm.running()])
    ec2.terminate_instances(InstanceIds=[one])
    seen = []
    until(lambda: seen.append(state(ec2, one)) or seen[-1] == "terminated")
    assert set(seen) <= {"shutting-down", "terminated"}
    assert one not in [other.name for other in vm.running()]


def test_a_launch_that_fails_says_why(home, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")  # where no QEMU is
    cloud.start()
    ec2 = boto3.client("ec2")
    (one,) = launch(ec2, wait=False)
    until(lambda: state(ec2, one) == "terminated")
    reason = facts(ec2, one)["StateReason"]
    assert reason["Code"] == "Server.InternalError" and "QEMU is not installed" in reason["Message"]


@pytest.mark.slow
def test_a_token_that_comes_twice_launches_once(ec2):
    ask = {"ImageId": BUSYBOX, "InstanceType": "t2.small", "MinCount": 1, "MaxCount": 1}
    first = ec2.run_instances(**ask, ClientToken="once")["Instances"][0]["InstanceId"]
    assert ec2.run_instances(**ask, ClientToken="once")["Instances"][0]["InstanceId"] == first
    terminate(ec2, first)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ssh"), reason="needs the ssh command")
def test_the_command_launches_amazon_linux_and_a_key_opens_it(ec2, tmp_path):
    (tmp_path / "setup.sh").write_text("#!/bin/bash -xe\nwords=(a b)\necho ${#words[@]} > /count\n")
    run = (
        f"cd {tmp_path}; aws ec2 create-key-pair --key-name mine --query KeyMaterial"
        " --output text > mine.pem; chmod 400 mine.pem\n"
        "id=$(aws ec2 create-security-group --group-name ssh --description ssh"
        " --query GroupId --output text)\n"
        "aws ec2 authorize-security-group-ingress --group-id $id --protocol tcp --port 22"
        f" --cidr {ANY} > /dev/null\n"
        f"aws ec2 run-instances --image-id $(aws ssm get-parameter --name {LATEST}"
        " --query Parameter.Value --output text) --key-name mine --security-group-ids $id"
        " --instance-type t2.micro --user-data file://setup.sh --query Instances[0].InstanceId"
        " --tag-specifications 'ResourceType=instance,Tags=[{Key=Name,Value=web}]'"
    )
    one = json.loads(sh(run))
    sh(f"aws ec2 wait instance-status-ok --instance-ids {one}")
    said(ec2, one, "ended with status 0")
    tags = {tag["Key"]: tag["Value"] for tag in facts(ec2, one)["Tags"]}
    assert tags["Name"] == "web"
    ip, port = tags.get("lab:port-22", f"{address(ec2, one)}:22").split(":")
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    ssh = f"ssh {options} -o BatchMode=yes -p {port} -i {tmp_path}/mine.pem ec2-user@{ip}"
    assert sh(f"{ssh} 'cat /count; sudo hostname'") == f"2\n{one}\n"
    sh(f"{ssh.replace(f'-i {tmp_path}/mine.pem', '')} true", ok=False)
    terminate(ec2, one)


@pytest.mark.slow
def test_when_the_cloud_is_killed_its_instances_end_with_the_next_start(home):
    cloud.start()
    (one,) = launch(boto3.client("ec2"))
    guest = machine_of(one)
    (entry,) = local._entries()
    os.kill(entry.pid, signal.SIGKILL)
    until(lambda: not entry.alive())
    assert guest.alive()
    cloud.start()
    assert not guest.alive() and not guest.folder.exists()
    assert boto3.client("ec2").describe_instances()["Reservations"] == []


@settings(deadline=None)  # the first time it imports moto
@given(cidr=st.sampled_from(["127.0.0.1/32", "127.0.0.0/8", ANY, "10.0.0.0/8", "128.0.0.0/1"]),
       first=st.integers(0, 65535), span=st.integers(0, 70))  # fmt: skip
def test_opened_ports_are_those_of_rules_for_the_learner(cidr, first, span):
    from helpers.cloud.instances import opened

    class Rule:
        ip_range, ip_protocol, from_port = {"CidrIp": cidr}, "tcp", first
        to_port = min(first + span, 65535)

    found = opened(Rule)
    if cidr in ("10.0.0.0/8", "128.0.0.0/1"):
        assert not found
    else:
        assert list(found) == [port for port in range(first, Rule.to_port + 1) if port]
