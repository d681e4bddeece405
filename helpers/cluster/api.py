"""A small client of the Kubernetes API, for the programs that stand beside it.

The lessons use the ``kubernetes`` package. It takes 100 MB and a second to load, which a node
cannot afford: this one knows paths and JSON, nothing more.
"""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import urllib3
import yaml

PATCHES = {
    "merge": "application/merge-patch+json",
    "strategic-merge": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
}
WATCH_SECONDS = 300


class ApiError(RuntimeError):
    """The API refused a request.

    Attributes:
        status: the HTTP status.
        reason: its reason in one word, such as ``NotFound``.
    """

    def __init__(self, status: int, body: bytes) -> None:
        try:
            said = json.loads(body)
        except ValueError:
            said = {}
        super().__init__(said.get("message") or body.decode(errors="replace") or f"HTTP {status}")
        self.status = status
        self.reason = said.get("reason", "")


class Api:
    """The API of one cluster, as one of its users. Threads may share it."""

    def __init__(self, kubeconfig: Path) -> None:
        """Read the current context of a kubeconfig file."""
        config = yaml.safe_load(kubeconfig.read_text())
        contexts = {one["name"]: one["context"] for one in config["contexts"]}
        context = contexts[config["current-context"]]
        cluster = {one["name"]: one["cluster"] for one in config["clusters"]}[context["cluster"]]
        user = {one["name"]: one["user"] for one in config["users"]}[context["user"]]
        with tempfile.TemporaryDirectory() as folder:
            authority = _file(cluster, "certificate-authority", kubeconfig, folder)
            tls = ssl.create_default_context(cafile=authority)
            if certificate := _file(user, "client-certificate", kubeconfig, folder):
                tls.load_cert_chain(certificate, _file(user, "client-key", kubeconfig, folder))
        self._pool = urllib3.PoolManager(num_pools=2, maxsize=16, ssl_context=tls)
        self.server = cluster["server"]
        self._headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}

    def get(self, path: str, **query) -> dict:
        """Return an object, or a list of them.

        Args:
            path: ``/api/v1/nodes`` or the like.
            query: parameters, such as ``fieldSelector``.

        Raises:
            ApiError: the API refuses; also for all methods below.
            urllib3.exceptions.HTTPError: it cannot be reached.
        """
        return self._json("GET", path, query=query)

    def create(self, path: str, body: dict) -> dict:
        """Create an object in the collection at a path and return it."""
        return self._json("POST", path, body)

    def replace(self, path: str, body: dict) -> dict:
        """Replace the object at a path and return the new one."""
        return self._json("PUT", path, body)

    def patch(self, path: str, body: dict | list, kind: str = "merge") -> dict:
        """Change the object at a path by a patch (``merge``, ``strategic-merge``, ``json``)."""
        return self._json("PATCH", path, body, PATCHES[kind])

    def delete(self, path: str, body: dict | None = None) -> dict:
        """Delete the object at a path."""
        return self._json("DELETE", path, body or {})

    def watch(self, path: str, **query) -> Iterator[tuple[str, object]]:
        """Yield what happens to the objects of a collection, for ever.

        Yields:
            ``("LISTED", all objects)`` at first and whenever changes may have been missed; then
            ``("ADDED" | "MODIFIED" | "DELETED", object)``. While the API cannot be reached it is
            asked again every half second.
        """
        version = ""
        while True:
            try:
                if not version:
                    listed = self.get(path, **query)
                    version = listed["metadata"]["resourceVersion"]
                    yield "LISTED", listed["items"]
                for kind, item in self._changes(path, version, query):
                    if kind == "ERROR":
                        raise ApiError(item.get("code", 410), json.dumps(item).encode())
                    version = item["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        yield kind, item
            except (ApiError, urllib3.exceptions.HTTPError, OSError, ValueError) as problem:
                if isinstance(problem, ApiError) and problem.status in (404, 410):
                    version = ""
                time.sleep(0.5)

    def _changes(self, path: str, version: str, query: dict) -> Iterator[tuple[str, dict]]:
        more = {"watch": "true", "resourceVersion": version, "timeoutSeconds": WATCH_SECONDS}
        more["allowWatchBookmarks"] = "true"
        answer = self._request("GET", path, query={**query, **more}, stream=True)
        try:
            left = b""
            for chunk in answer.stream(65536):
                *lines, left = (left + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    yield event["type"], event["object"]
        finally:
            answer.close()

    def _json(self, method: str, path: str, body=None, kind="application/json", query=None) -> dict:
        return json.loads(self._request(method, path, body, kind, query).data)

    def _request(self, method, path, body=None, kind="application/json", query=None, stream=False):
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = kind
        url = self.server + path
        if query:
            url += "?" + urlencode(query)
        answer = self._pool.request(
            method,
            url,
            body=None if body is None else json.dumps(body),
            headers=headers,
            preload_content=not stream,
            retries=False,
            timeout=urllib3.Timeout(connect=5, read=WATCH_SECONDS + 30 if stream else 30),
        )
        if answer.status >= 400:
            raise ApiError(answer.status, answer.data)
        return answer


def write_kubeconfig(path: Path, name: str, cluster: dict, user: dict) -> None:
    """Write a kubeconfig file with one context, for nobody but its owner.

    Args:
        path: the file.
        name: what context, cluster and user are called in it.
        cluster: where it is (``server``, ``certificate-authority-data``).
        user: what proves who comes (``token``).
    """
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1))  # JSON is YAML


def _file(given: dict, name: str, kubeconfig: Path, folder: str) -> str | None:
    """Return the path of what a kubeconfig names by path, or holds itself."""
    if name in given:
        return str(kubeconfig.parent / given[name])
    if f"{name}-data" in given:
        path = Path(folder) / name
        path.write_bytes(base64.b64decode(given[f"{name}-data"]))
        return str(path)
    return None
