"""The volumes of a pod: what is in them, and where the containers have them."""

from __future__ import annotations

import time

from helpers.cluster.agent.environment import MissingError, References
from helpers.cluster.agent.runtime import Mount, Volume

Files = dict[str, tuple[bytes, int]]


class Volumes:
    """The volumes of one pod."""

    def __init__(self, look: References, rung: str) -> None:
        """Prepare for a pod on this rung of the ladder."""
        self._look, self._rung = look, rung
        self._tokens: dict[str, tuple[float, bytes]] = {}
        self.known: dict[str, Volume] = {}
        self._written: dict[str, Files] = {}

    def load(self) -> list[Volume]:
        """Read all volumes anew, and return those of files that have to be written.

        Raises:
            MissingError: something that one refers to is not there; the message names both.
        """
        for spec in self._look.pod["spec"].get("volumes", []):
            try:
                self.known[spec["name"]] = self._volume(spec)
            except MissingError as problem:
                text = f'MountVolume.SetUp failed for volume "{spec["name"]}" : {problem}'
                raise MissingError(text) from None
        with_files = [one for one in self.known.values() if one.files is not None]
        return [one for one in with_files if one.files != self._written.get(one.store)]

    def wrote(self, volume: Volume) -> None:
        """Take note that a volume's files have been written."""
        self._written[volume.store] = volume.files

    def mounts(self, container: dict) -> list[Mount]:
        """Return where a container has them."""
        return [
            Mount(
                one["mountPath"],
                self.known[one["name"]],
                one.get("readOnly", False) or self.known[one["name"]].files is not None,
                one.get("subPath", ""),
            )
            for one in container.get("volumeMounts", [])
        ]

    def _volume(self, spec: dict) -> Volume:
        look = self._look
        store = f"{look.pod['metadata']['uid']}-{spec['name']}"
        kind, source = next((key, value) for key, value in spec.items() if key != "name")
        if kind == "emptyDir":
            return Volume(store, memory=source.get("medium") == "Memory")
        if kind == "hostPath":
            return self._host(source["path"])
        if kind == "persistentVolumeClaim":
            path = f"/api/v1/namespaces/{look.space}/persistentvolumeclaims/{source['claimName']}"
            name = look.api.get(path)["spec"]["volumeName"]
            kept = look.api.get(f"/api/v1/persistentvolumes/{name}")["spec"]
            if "hostPath" not in kept and "local" not in kept:
                raise MissingError(f"PersistentVolume {name} is not of the kind hostPath or local")
            return Volume(f"pv-{name}", kept=True)
        mode = source.get("defaultMode", 0o644)
        parts = source.get("sources", []) if kind == "projected" else [{kind: source}]
        files: Files = {}
        for part in parts:
            files |= self._files(*next(iter(part.items())), mode)
        return Volume(store, files)

    def _host(self, path: str) -> Volume:
        if self._rung == "docker in a VM":
            raise MissingError("a hostPath is only possible on the machine's own Docker Engine")
        return Volume(path, kept=True)

    def _files(self, kind: str, source: dict, mode: int) -> Files:
        if kind == "serviceAccountToken":
            return {source["path"]: (self._token(source), mode)}
        if kind == "downwardAPI":
            return {
                item["path"]: (self._told(item).encode(), item.get("mode", mode))
                for item in source.get("items", [])
            }
        if kind not in ("configMap", "secret"):
            raise MissingError(f"volumes of the kind {kind} are not supported")
        title = "ConfigMap" if kind == "configMap" else "Secret"
        data = self._look.data(title, source)
        items = source.get("items") or [{"key": key, "path": key} for key in data]
        for item in items:
            if item["key"] not in data and not source.get("optional"):
                raise MissingError(f"references non-existent {title} key: {item['key']}")
        return {
            item["path"]: (data[item["key"]], item.get("mode", mode))
            for item in items
            if item["key"] in data
        }

    def _told(self, item: dict) -> str:
        if "fieldRef" in item:
            return self._look.field(item["fieldRef"]["fieldPath"])
        return self._look.resource(item["resourceFieldRef"], {})

    def _token(self, source: dict) -> bytes:
        """Return a token of the pod's ServiceAccount, a new one when the old one ages."""
        seconds, audience = source.get("expirationSeconds", 3600), source.get("audience", "")
        until, token = self._tokens.get(source["path"], (0.0, b""))
        if time.time() > until:
            meta, spec = self._look.pod["metadata"], self._look.pod["spec"]
            account = spec.get("serviceAccountName") or "default"
            path = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{account}/token"
            pod = {"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]}
            asked = {"expirationSeconds": seconds, "boundObjectRef": pod}
            asked |= {"audiences": [audience]} if audience else {}
            token = self._look.api.create(path, {"spec": asked})["status"]["token"].encode()
            self._tokens[source["path"]] = (time.time() + 0.8 * seconds, token)
        return token
