"""Waiting for what takes a while, with a limit, and asking web servers and queues."""

import json
import time
import urllib.request

PATIENCE = 120  # seconds, far more than anything takes


def until(condition):
    """Ask until it is so, and return what it then is."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)
    return found


def page(url):
    """What a web server answers, or nothing while there is none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def received(queue):
    """The messages that a queue of SQS has now, which are taken out of it."""
    import boto3

    sqs = boto3.client("sqs")
    found = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    for one in found:
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=one["ReceiptHandle"])
    return [json.loads(one["Body"]) for one in found]
