"""What lifecycle policies of ECR would delete."""

from __future__ import annotations

import fnmatch
import json
import time


def preview(images: list, policy: str) -> list[dict]:
    """Return the images that a policy would delete, as its preview lists them.

    A rule counts all images that it is about, but deletes none that a rule before it is about.

    Args:
        images: moto's images, in the order in which they came.
        policy: a valid policy (JSON).
    """
    found, taken = [], set()
    for rule in sorted(json.loads(policy)["rules"], key=lambda one: one["rulePriority"]):
        chosen = rule["selection"]
        matching = [one for one in images if _matches(one.image_tags, chosen)]
        newest = sorted(matching, key=lambda one: one.image_pushed_at)[::-1]
        if chosen["countType"] == "imageCountMoreThan":
            old = newest[chosen["countNumber"] :]
        else:
            limit = time.time() - chosen["countNumber"] * 86400
            old = [one for one in newest if one.image_pushed_at < limit]
        found += [_described(one, rule) for one in old if one.image_digest not in taken]
        taken |= {one.image_digest for one in matching}
    return found


def _matches(tags: list[str], chosen: dict) -> bool:
    """Say whether a rule is about an image with such tags."""
    patterns = [f"{one}*" for one in chosen.get("tagPrefixList", [])]
    patterns += chosen.get("tagPatternList", [])
    if chosen["tagStatus"] == "tagged":
        return bool(tags) and all(fnmatch.filter(tags, one) for one in patterns)
    return chosen["tagStatus"] == "any" or not tags


def _described(image, rule: dict) -> dict:
    return {
        "imageTags": list(image.image_tags),
        "imageDigest": image.image_digest,
        "imagePushedAt": image.image_pushed_at,
        "action": {"type": "EXPIRE"},
        "appliedRulePriority": rule["rulePriority"],
    }
