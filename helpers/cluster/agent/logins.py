"""How a node logs in to the registry of an image: by the pod's Secrets, or as itself."""

from __future__ import annotations

import base64
import json

import urllib3

from helpers.cluster.agent.environment import MissingError

API = "credentialprovider.kubelet.k8s.io/v1"


def find(worker, image: str) -> dict[str, str]:
    """Return ``username`` and ``password`` for the registry of an image, or nothing.

    And ``mirror``, if the images of that registry are at another one.

    Args:
        worker: the pod that needs the image.
        image: its name.
    """
    registry = image.split("/")[0]
    for secret in worker.pod["spec"].get("imagePullSecrets", []):
        try:
            text = worker.look.data("Secret", secret)[".dockerconfigjson"]
            known = json.loads(text)["auths"]
        except (MissingError, KeyError, ValueError):  # another one may do
            continue
        if registry in known:
            return _read(known[registry])
    if not (url := worker.node.settings.logins):
        return {}
    body = {"apiVersion": API, "kind": "CredentialProviderRequest", "image": image}
    try:
        return urllib3.request("POST", url, json=body, timeout=30).json()["auth"].get(registry, {})
    except (urllib3.exceptions.HTTPError, KeyError, ValueError) as problem:
        print(f"No login for {registry}: {problem}", flush=True)
        return {}


def _read(entry: dict) -> dict[str, str]:
    """Return what stands in one entry of a Docker configuration."""
    if "auth" in entry:
        name, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        return {"username": name, "password": password}
    return {name: entry.get(name, "") for name in ("username", "password")}
