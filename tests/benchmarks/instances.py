"""Compare an EC2 instance of the local cloud with the bare machine, in turns.

Both boot the same image with the same web server; the time runs from ``vm.boot`` or
``run-instances`` to the server's first reply.

    python tests/benchmarks/instances.py [REPEATS]
"""

import os
import statistics
import sys
import tempfile
import time
import urllib.request

import boto3

from helpers import cloud, ledger, vm
from helpers.cloud import local

SERVER = "ami-0b5b0c5b0c5b00002"
WEB = "exec python3 -m http.server 8080"


def reply(url, begin):
    """Return the seconds until a web server answers."""
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return time.perf_counter() - begin
        except OSError:
            time.sleep(0.02)


def machine():
    """Boot a machine, and return the seconds to its reply."""
    begin = time.perf_counter()
    with vm.boot("server", memory=1024, ports=[8080], command=WEB) as guest:
        return reply(guest.url(8080), begin)


def instance(ec2):
    """Launch an instance of one processor and 1024 MB, and return the seconds to its reply."""
    begin = time.perf_counter()
    asked = {"ImageId": SERVER, "InstanceType": "t2.micro", "MinCount": 1, "MaxCount": 1}
    launched = ec2.run_instances(UserData=f"#!/bin/sh\n{WEB}\n", **asked)["Instances"][0]
    seconds = reply(f"http://{launched['PublicIpAddress']}:8080", begin)
    ec2.terminate_instances(InstanceIds=[launched["InstanceId"]])
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[launched["InstanceId"]])
    return seconds


def main():
    """Print both medians, their ratio, and the memory of the cloud afterwards."""
    cloud.start()
    ec2 = boto3.client("ec2")
    (default,) = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
    rule = {"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "CidrIp": "127.0.0.1/32"}
    ec2.authorize_security_group_ingress(GroupId=default["GroupId"], **rule)
    turns = [(machine(), instance(ec2)) for _ in range(int((sys.argv + ["5"])[1]))]
    bare, launched = map(statistics.median, zip(*turns, strict=True))
    print(f"vm.boot {bare:.2f} s, run-instances {launched:.2f} s, ratio {launched / bare:.2f}")
    (entry,) = local._entries()
    print(os.popen(f"grep VmRSS /proc/{entry.pid}/status").read().strip())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["LAB_HOME"] = home
        try:
            main()
        finally:
            ledger.down()
