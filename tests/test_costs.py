"""What all that exists costs on AWS: the list of prices, the bill, and who shows it."""

import csv
import datetime
import json
import re
import subprocess
import sys
import time

import boto3
import pytest

from helpers import cloud
from helpers.cloud import costs


@pytest.fixture
def aws(home):
    return cloud.start()


def status(*options):
    command = [sys.executable, "-m", "helpers", "status", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_price_has_a_source_and_a_day():
    with open(costs.PRICES) as file:
        rows = list(csv.DictReader(file))
    assert len({row["item"] for row in rows}) == len(rows)
    for row in rows:
        assert re.fullmatch(r"aws\.amazon\.com/[\w/-]+/pricing(/[\w-]+)?", row["source"]), row
        assert datetime.date.fromisoformat(row["checked"]) <= datetime.date.today()
        assert costs.price(row["item"]) > 0


def test_prices_are_an_hour():
    assert costs.price("t3.micro") == 0.0104
    assert costs.price("CodePipeline V1") == pytest.approx(1 / 730)
    assert costs.price("CodeBuild general1.small") == pytest.approx(0.3)
    assert costs.price("a moon") is None


def test_a_plan_is_priced_and_an_unknown_item_is_named():
    said = costs.expected(["t3.micro", "public IPv4 address"])
    assert said.startswith("t3.micro, public IPv4 address: $0.0154 an hour on AWS")
    with pytest.raises(KeyError, match="a moon not in prices.csv"):
        costs.expected(["t3.micro", "a moon"])


def test_an_empty_cloud_costs_nothing(aws):
    assert cloud.bill().loc["all", "$ an hour"] == 0
    assert "On AWS" not in status()


def test_what_exists_is_on_the_bill_and_what_is_gone_is_not(aws):
    ec2 = boto3.client("ec2")
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=100, VolumeType="gp3")
    begin = time.time()
    found = cloud.bill()
    assert found.loc["volume gp3", "name"] == volume["VolumeId"]
    assert found.loc["volume gp3", "$ a month"] == pytest.approx(8)
    assert found.loc["all", "$ a month"] == pytest.approx(8)
    told = json.loads(status("--json"))
    (item,) = told["costs"]
    assert (item["item"], item["name"]) == ("volume gp3", volume["VolumeId"])
    assert 0 <= item["hours"] <= (time.time() - begin + 60) / 3600
    assert re.search(r"On AWS this costs +\$ 0.0110 an hour, \$ 8.00 a month", status())
    ec2.delete_volume(VolumeId=volume["VolumeId"])
    assert cloud.bill().loc["all", "$ an hour"] == 0


def test_storage_is_paid_by_its_size(aws):
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="attic")
    s3.put_object(Bucket="attic", Key="trunk", Body=bytes(1 << 20))
    (item,) = costs.items()
    assert item.hour == pytest.approx(0.023 / 730 / 1024)


def test_what_has_no_price_is_said_and_not_left_out(aws, tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "PRICES", tmp_path / "prices.csv")
    costs.PRICES.write_text("item,usd,per\nt3.micro,0.0104,hour\n")
    boto3.client("ec2").create_volume(AvailabilityZone="us-east-1a", Size=1, VolumeType="gp3")
    (item,) = costs.items()
    assert item.hour is None and item.spent == 0
