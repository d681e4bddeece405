"""Volumes on demand: the StorageClass ``standard``."""

from __future__ import annotations

import contextlib

from helpers.cluster.api import Api, ApiError

PROVISIONER = "lab/volumes"
STORAGE = "/apis/storage.k8s.io/v1/storageclasses"
VOLUMES = "/api/v1/persistentvolumes"
BY = "pv.kubernetes.io/provisioned-by"


def provide(api: Api) -> None:
    """Give each claim of the class a volume of its own, for ever.

    A volume is of the kind hostPath with the path ``/lab/NAME``; the node's agent knows it.
    """
    standard = {
        "metadata": {
            "name": "standard",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
    }
    with contextlib.suppress(ApiError):  # it is there already
        api.create(STORAGE, standard)
    for kind, found in api.watch("/api/v1/persistentvolumeclaims"):
        for claim in found if kind == "LISTED" else [found]:
            spec = claim["spec"]
            ours = spec.get("storageClassName") == "standard" and not spec.get("volumeName")
            if kind != "DELETED" and ours:
                with contextlib.suppress(ApiError):
                    api.create(VOLUMES, _volume(claim))


def clean(api: Api) -> None:
    """Delete each volume whose claim is gone, for ever."""
    for kind, found in api.watch(VOLUMES):
        for volume in found if kind == "LISTED" else [found]:
            ours = (volume["metadata"].get("annotations") or {}).get(BY) == PROVISIONER
            if kind != "DELETED" and ours and volume["status"].get("phase") == "Released":
                with contextlib.suppress(ApiError):
                    api.delete(f"{VOLUMES}/{volume['metadata']['name']}")


def _volume(claim: dict) -> dict:
    meta, spec = claim["metadata"], claim["spec"]
    name = f"pvc-{meta['uid']}"
    return {
        "metadata": {"name": name, "annotations": {BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "storageClassName": spec["storageClassName"],
            "persistentVolumeReclaimPolicy": "Delete",
            "hostPath": {"path": f"/lab/{name}"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                **{key: meta[key] for key in ("namespace", "name", "uid")},
            },
        },
    }
