"""Events: what a node tells about its pods (``kubectl describe``)."""

from __future__ import annotations

import queue
import threading
import time

import urllib3

from helpers.cluster.api import Api, ApiError


def now() -> str:
    """Return the time as the API writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Events:
    """Posts events in the background, in their order; what repeats is counted."""

    def __init__(self, api: Api, node: str) -> None:
        """Begin to post as a node."""
        self._api, self._node = api, node
        self._queue: queue.Queue[tuple] = queue.Queue()
        self._posted: dict[tuple, dict] = {}
        threading.Thread(target=self._post, daemon=True).start()

    def __call__(
        self, item: dict, reason: str, message: str, *, kind: str = "Normal", container: str = ""
    ) -> None:
        """Tell something about an object.

        Args:
            item: the object, as the API gives it.
            reason: the word for it.
            message: the sentence.
            kind: ``Normal`` or ``Warning``.
            container: what of the object, such as ``spec.containers{web}``.
        """
        self._queue.put((item, reason, message[:1000], kind, container, now()))

    def _post(self) -> None:
        while True:
            item, reason, message, kind, container, when = self._queue.get()
            meta = item["metadata"]
            key = (meta["uid"], reason, message, container)
            space = meta.get("namespace", "default")
            path = f"/api/v1/namespaces/{space}/events"
            try:
                if event := self._posted.get(key):
                    event["count"] += 1
                    change = {"count": event["count"], "lastTimestamp": when}
                    self._api.patch(f"{path}/{event['metadata']['name']}", change)
                    continue
                about = {name: meta[name] for name in ("name", "uid")}
                about |= {"kind": item["kind"], "apiVersion": "v1", "fieldPath": container}
                if "namespace" in meta:
                    about["namespace"] = space
                event = {
                    "metadata": {"name": f"{meta['name']}.{time.time_ns():x}", "namespace": space},
                    "involvedObject": about,
                    "reason": reason,
                    "message": message,
                    "type": kind,
                    "source": {"component": "kubelet", "host": self._node},
                    "firstTimestamp": when,
                    "lastTimestamp": when,
                    "count": 1,
                }
                self._posted[key] = self._api.create(path, event)
                while len(self._posted) > 500:
                    self._posted.pop(next(iter(self._posted)))
            except (ApiError, urllib3.exceptions.HTTPError, OSError):
                self._posted.pop(key, None)  # told once more, it is a new one
