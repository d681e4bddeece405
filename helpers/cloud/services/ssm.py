"""SSM: the public parameters that name the newest Amazon Linux name our image that stands in."""

from __future__ import annotations

from moto.ssm.models import ParameterDict

from helpers.cloud.services.ec2 import SERVER_AMI

PREFIX = "/aws/service/ami-amazon-linux-latest/"

_load = ParameterDict._load_latest_amis


def _load_latest_amis(self) -> None:
    _load(self)
    for name in [name for name in dict.keys(self) if name.startswith(PREFIX)]:
        if name.endswith("arm64") or "amzn-ami" in name:
            dict.pop(self, name)  # no machine of ours is like those
        else:
            for version in dict.__getitem__(self, name):
                version.value = SERVER_AMI


ParameterDict._load_latest_amis = _load_latest_amis
