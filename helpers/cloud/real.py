"""A real AWS account, by explicit opt-in only: the learner names a profile and the account."""

from __future__ import annotations

import os
from pathlib import Path

from helpers import ledger
from helpers.cloud import costs, environment
from helpers.cloud.local import Cloud, CloudError

HOW = "Set LAB_AWS=real, LAB_AWS_PROFILE to a profile and LAB_AWS_ACCOUNT to its account's number."
THEIRS = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE")


def account(*plan: str) -> Cloud:
    """Point this process at the named profile, once its account proved to be the one typed.

    Until then nothing but the question whose profile it is may leave the machine. Account, region
    and what the plan costs are printed, because everything after that costs money.

    Raises:
        CloudError: something was not named, or the account is another one.
    """
    profile, typed = (os.environ.get(name) for name in ("LAB_AWS_PROFILE", "LAB_AWS_ACCOUNT"))
    if not profile or not typed:
        raise CloudError(f"A real account has to be named in full. {HOW}")
    settings = {"LAB_AWS": "real", "LAB_AWS_PROFILE": profile, "LAB_AWS_ACCOUNT": typed}
    settings |= {"LAB_AWS_CHECKED": f"{profile} {typed}", "AWS_PROFILE": profile}
    for name in THEIRS:
        path = os.environ.get(name, "")
        if path and not Path(path).is_relative_to(ledger.home()):
            settings[name] = path
    environment.use(settings)
    try:
        found, region = _whose(profile)
        if found != typed:
            raise CloudError(f"Profile {profile} belongs to account {found}, not {typed}. {HOW}")
        if not region:
            raise CloudError(f"Profile {profile} names no region: aws configure set region …")
    except CloudError:
        del os.environ["LAB_AWS_CHECKED"]  # the guard refuses again
        raise
    print(f"Real account {found}, region {region}: what you make costs money until it is deleted.")
    if plan:
        print(f"Expected: {costs.expected(plan)} (list prices of us-east-1).")
    return Cloud("real account", "", found, region, settings)


def _whose(profile: str) -> tuple[str, str | None]:
    """Ask AWS for the account of a profile; return it with the profile's region."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        session = boto3.Session(profile_name=profile)
        client = session.client("sts", region_name=session.region_name or environment.REGION)
        return client.get_caller_identity()["Account"], session.region_name
    except (BotoCoreError, ClientError) as problem:
        text = f"AWS does not say whose profile {profile} is ({problem}). {HOW}"
        raise CloudError(text) from None
