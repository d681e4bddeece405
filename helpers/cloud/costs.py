"""What all that exists now costs on AWS: an hour, a month, and since it was made.

The prices stand in ``data/prices.csv``: list prices of us-east-1, each with its source and the day
on which it was checked. Data that is sent to the internet, requests and builds are not counted.
"""

from __future__ import annotations

import csv
import datetime
import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.cloud import environment

PRICES = Path(__file__).parents[2] / "data/prices.csv"
HOURS_A_MONTH = 730  # as AWS's own calculator has it


@dataclass(frozen=True)
class Item:
    """One thing that costs.

    Attributes:
        item: what it is, as in the list of prices (``t3.micro``).
        name: its own name (``i-0abc…``).
        hour: US dollars an hour from now on; None if its price is not in the list.
        hours: for how long it has been paid for.
        rate: US dollars an hour for that time.
    """

    item: str
    name: str
    hour: float | None
    hours: float
    rate: float

    @property
    def spent(self) -> float:
        """US dollars since it was made."""
        return self.rate * self.hours


def price(item: str) -> float | None:
    """Return the price of an item in US dollars an hour (of a GB, if it is sold by the GB).

    None stands for one that is not in the list.
    """
    rows = _rows(PRICES)
    if item not in rows:
        return None
    usd, per = float(rows[item]["usd"]), rows[item]["per"]
    return usd / HOURS_A_MONTH if per.endswith("month") else usd * 60 if per == "minute" else usd


def expected(plan: Sequence[str]) -> str:
    """Say in a sentence what a plan costs an hour (``["t3.micro", "public IPv4 address"]``).

    Raises:
        KeyError: an item is not in the list of prices.
    """
    prices = {item: price(item) for item in plan}
    if unknown := [item for item, usd in prices.items() if usd is None]:
        raise KeyError(f"{', '.join(unknown)} not in {PRICES.name}")
    usd = sum(prices[item] for item in plan)
    return f"{', '.join(plan)}: ${usd:.4f} an hour on AWS, as long as they exist"


def items() -> list[Item]:
    """Return all that now exists and costs, in the AWS that this process is led to.

    Instances that are gone are still there with what they have cost, as long as AWS lists them.
    In the local cloud only the services that were called are asked.
    """
    import boto3

    session, used = boto3.Session(), _used()
    return [
        item
        for service, read in _READERS.items()
        if service in used
        for item in read(session.client(service))
    ]


def bill():
    """Return all that exists and costs as a pandas table, with a last row for the whole."""
    import pandas as pd

    rows = [(i.item, i.name, i.hour, i.hours * 60, i.spent) for i in items()]
    columns = ["item", "name", "$ an hour", "minutes", "$ so far"]
    found = pd.DataFrame(rows, columns=columns).set_index("item")
    found.loc["all", columns[2:]] = [found["$ an hour"].sum(), None, found["$ so far"].sum()]
    found.insert(2, "$ a month", found["$ an hour"] * HOURS_A_MONTH)
    return found.fillna({"name": ""})


@functools.cache
def _rows(path: Path) -> dict[str, dict[str, str]]:
    with open(path) as file:
        return {row["item"]: row for row in csv.DictReader(file)}


def _used() -> set[str]:
    if not os.environ.get("AWS_ENDPOINT_URL"):  # a real account
        return set(_READERS)
    calls = (environment.folder() / "requests.log").read_text().splitlines()
    return {line.split()[2] for line in calls}


def _item(item: str, name: str, since: datetime.datetime, until=None, amount: float = 1) -> Item:
    end = until or datetime.datetime.now(datetime.UTC)
    usd = price(item)
    rate = (usd or 0) * amount
    hours = max(0.0, (end - since).total_seconds() / 3600)
    return Item(item, name, 0.0 if until else usd and rate, hours, rate)


def _ec2(client) -> Iterator[Item]:
    for page in client.get_paginator("describe_instances").paginate():
        for one in (i for reservation in page["Reservations"] for i in reservation["Instances"]):
            until = _ended(one)
            yield _item(one["InstanceType"], one["InstanceId"], one["LaunchTime"], until)
            if one.get("PublicIpAddress"):
                address = one["PublicIpAddress"]
                yield _item("public IPv4 address", address, one["LaunchTime"], until)
    for one in client.describe_volumes()["Volumes"]:
        kind = f"volume {one['VolumeType']}"
        yield _item(kind, one["VolumeId"], one["CreateTime"], amount=one["Size"])
    for one in client.describe_nat_gateways()["NatGateways"]:
        if one["State"] != "deleted":
            yield _item("NAT gateway", one["NatGatewayId"], one["CreateTime"])


def _ended(instance: dict) -> datetime.datetime | None:
    """Return when an instance was stopped or terminated, and None if it runs."""
    if instance["State"]["Name"] not in ("stopped", "terminated"):
        return None
    when = re.search(r"\((\S+ \S+) \w+\)", instance.get("StateTransitionReason", ""))
    if not when:  # it has died: nobody noted when
        return instance["LaunchTime"]
    return datetime.datetime.fromisoformat(f"{when[1]}+00:00")


def _eks(client) -> Iterator[Item]:
    for name in client.list_clusters()["clusters"]:
        since = client.describe_cluster(name=name)["cluster"]["createdAt"]
        yield _item("EKS cluster", name, since)
        if not os.environ.get("AWS_ENDPOINT_URL"):
            continue  # on AWS the nodes are among the instances
        for group in client.list_nodegroups(clusterName=name)["nodegroups"]:
            one = client.describe_nodegroup(clusterName=name, nodegroupName=group)["nodegroup"]
            count, since = one["scalingConfig"]["desiredSize"], one["createdAt"]
            yield _item(one["instanceTypes"][0], f"{name}/{group}", since, amount=count)
            size = one["diskSize"] * count
            yield _item("volume gp3", f"{name}/{group}", since, amount=size)


def _elbv2(client) -> Iterator[Item]:
    for one in client.describe_load_balancers()["LoadBalancers"]:
        yield _item("application load balancer", one["LoadBalancerName"], one["CreatedTime"])


def _codepipeline(client) -> Iterator[Item]:
    for one in client.list_pipelines()["pipelines"]:
        if one.get("pipelineType", "V1") == "V1":
            yield _item("CodePipeline V1", one["name"], one["created"])


def _ecr(client) -> Iterator[Item]:
    for repository in client.describe_repositories()["repositories"]:
        name = repository["repositoryName"]
        images = client.describe_images(repositoryName=name)["imageDetails"]
        size = sum(image.get("imageSizeInBytes", 0) for image in images)
        yield _item("ECR storage", name, repository["createdAt"], amount=size / 1e9)


def _s3(client) -> Iterator[Item]:
    for bucket in client.list_buckets()["Buckets"]:  # of each the first thousand objects
        objects = client.list_objects_v2(Bucket=bucket["Name"]).get("Contents", [])
        size = sum(one["Size"] for one in objects) / 2**30
        yield _item("S3 standard", bucket["Name"], bucket["CreationDate"], amount=size)


_READERS: dict[str, Callable[..., Iterator[Item]]] = {
    "ec2": _ec2,
    "eks": _eks,
    "elbv2": _elbv2,
    "codepipeline": _codepipeline,
    "ecr": _ecr,
    "s3": _s3,
}
