"""The local cloud as a whole: a web server from a template, killed in the middle, and twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from waiting import page, until

from helpers import cloud, ledger, machine, vm
from helpers.cloud import local

TEMPLATE = (Path(__file__).resolve().parents[1] / "data/templates/web-server.yaml").read_text()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not machine.qemu(), reason="needs QEMU"),
]
# A learner in a process and a LAB_HOME of their own, who prints the address of their server.
LEARNER = f"""
import boto3
from helpers import cloud
cloud.start()
cf = boto3.client("cloudformation")
greeting = {{"ParameterKey": "Greeting", "ParameterValue": "GREETING"}}
cf.create_stack(StackName="web", TemplateBody={TEMPLATE!r}, Parameters=[greeting])
cf.get_waiter("stack_create_complete").wait(StackName="web")
(stack,) = cf.describe_stacks(StackName="web")["Stacks"]
print({{one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}}["Url"])
"""


def test_a_cloud_that_is_killed_while_it_makes_a_stack_leaves_nothing(home, capsys):
    cloud.start()
    cf = boto3.client("cloudformation")
    cf.create_stack(StackName="web", TemplateBody=TEMPLATE)
    guest = until(vm.running)[0]
    (entry,) = local._entries()
    os.kill(entry.pid, signal.SIGKILL)
    until(lambda: not entry.alive())
    with pytest.raises(EndpointConnectionError):
        cf.describe_stacks()
    assert guest.alive()  # and down would find it
    capsys.readouterr()
    cloud.start()
    assert "had died, and what was in it is lost" in capsys.readouterr().out
    assert not guest.alive() and vm.running() == []
    assert boto3.client("cloudformation").describe_stacks()["Stacks"] == []
    assert boto3.client("ec2").describe_instances()["Reservations"] == []


def test_two_learners_have_a_web_server_each_at_the_same_port(tmp_path):
    names = ("ada", "bob")
    homes = {name: {**os.environ, "LAB_HOME": str(tmp_path / name)} for name in names}
    run = {"stdout": subprocess.PIPE, "text": True}
    try:
        working = {
            name: subprocess.Popen(
                [sys.executable, "-c", LEARNER.replace("GREETING", name)], env=env, **run
            )
            for name, env in homes.items()
        }
        urls = {name: one.communicate()[0].splitlines()[-1] for name, one in working.items()}
        assert urls["ada"] != urls["bob"]
        for name, url in urls.items():
            assert until(lambda url=url: page(url).strip()) == name
        down(homes["ada"])
        assert page(urls["ada"]) == "" and page(urls["bob"]).strip() == "bob"
    finally:
        for env in homes.values():
            assert "Nothing is left" in down(env)


def down(env):
    command = [sys.executable, "-m", "helpers", "down"]
    return subprocess.run(command, env=env, capture_output=True, text=True).stdout


def test_a_machine_that_dies_under_a_stack_is_told_and_the_stack_can_be_deleted(home):
    cloud.start()
    cf, ec2 = boto3.client("cloudformation"), boto3.client("ec2")
    cf.create_stack(StackName="web", TemplateBody=TEMPLATE)
    cf.get_waiter("stack_create_complete").wait(StackName="web")
    (guest,) = vm.running()
    os.kill(guest.pid, signal.SIGKILL)
    look = lambda: ec2.describe_instances()["Reservations"][0]["Instances"][0]  # noqa: E731
    until(lambda: look()["State"]["Name"] == "stopped")
    assert look()["StateReason"]["Code"] == "Server.InternalError"
    cf.delete_stack(StackName="web")
    until(lambda: cf.describe_stacks()["Stacks"] == [])
    assert [entry.name for entry in ledger.entries("process")] == [local.NAME]
