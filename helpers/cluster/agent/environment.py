"""What a container is told: its environment variables, and what they and volumes refer to."""

from __future__ import annotations

import base64
import re
import time
from decimal import Decimal

from helpers.cluster.api import Api, ApiError

UNITS = {"m": Decimal("0.001"), "": 1, "n": Decimal("1e-9"), "u": Decimal("1e-6"), "k": 1000}
UNITS |= {letter: 1000**power for power, letter in enumerate("MGTPE", 2)}
UNITS |= {letter + "i": 1024**power for power, letter in enumerate("KMGTPE", 1)}


class MissingError(RuntimeError):
    """Something that a pod refers to is not there."""


def quantity(text: str | int | float) -> Decimal:
    """Return the number that a quantity such as ``250m`` or ``64Mi`` stands for."""
    number, unit = re.fullmatch(r"([-+.\d]+(?:[eE]\d+)?)(\w*)", str(text)).groups()
    return Decimal(number) * UNITS[unit]


def expand(text: str, known: dict[str, str]) -> str:
    """Replace ``$(NAME)`` by what is known; ``$$`` stands for ``$``."""

    def value(found: re.Match) -> str:
        return "$" if found[0] == "$$" else known.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^()]+)\)", value, text)


class References:
    """Looks up what a pod's environment and volumes refer to."""

    def __init__(self, api: Api, pod: dict, address: str, host: str, offered: dict) -> None:
        """Look up for one pod; ``offered`` is what the node has (the limits of the unlimited)."""
        self.api, self.pod, self.space = api, pod, pod["metadata"]["namespace"]
        self.address, self.host, self.offered = address, host, offered

    def data(self, kind: str, source: dict) -> dict[str, bytes]:
        """Return the content of a ConfigMap or Secret.

        Args:
            kind: ``ConfigMap`` or ``Secret``.
            source: its ``name``, and whether it is ``optional``.

        Raises:
            MissingError: it is not there.
        """
        name = source.get("name") or source.get("secretName")
        path = f"/api/v1/namespaces/{self.space}/{kind.lower()}s/{name}"
        for attempt in range(5):
            try:
                found = self.api.get(path)
                break
            except ApiError as problem:
                if problem.status == 404 and source.get("optional"):
                    return {}
                if problem.status == 404:
                    raise MissingError(f'{kind.lower()} "{name}" not found') from None
                if problem.status != 403 or attempt == 4:
                    raise MissingError(str(problem)) from None
            time.sleep(0.2)  # the API does not know yet that the pod has come to this node
        binary = found.get("binaryData" if kind == "ConfigMap" else "data") or {}
        plain = found["data"] if kind == "ConfigMap" and found.get("data") else {}
        decoded = {key: base64.b64decode(value) for key, value in binary.items()}
        return decoded | {key: value.encode() for key, value in plain.items()}

    def key(self, kind: str, source: dict) -> bytes | None:
        """Return what is under one key; None if it is not there and need not be."""
        found = self.data(kind, source).get(source["key"])
        if found is None and not source.get("optional"):
            where = f"{kind} {self.space}/{source['name']}"
            raise MissingError(f"couldn't find key {source['key']} in {where}")
        return found

    def field(self, path: str) -> str:
        """Return a field of the pod (``metadata.name``, ``metadata.labels['app']``, …)."""
        meta, spec = self.pod["metadata"], self.pod["spec"]
        if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
            return meta.get(found[1], {}).get(found[2], "")
        if path in ("metadata.labels", "metadata.annotations"):
            pairs = sorted(meta.get(path.removeprefix("metadata."), {}).items())
            return "\n".join(f'{key}="{value}"' for key, value in pairs)
        known = {f"metadata.{name}": meta[name] for name in ("name", "namespace", "uid")}
        known |= {f"status.{name}": self.address for name in ("podIP", "podIPs")}
        known |= {"status.hostIP": self.host, "spec.nodeName": spec["nodeName"]}
        known["spec.serviceAccountName"] = spec.get("serviceAccountName", "")
        if path not in known:
            raise MissingError(f"field {path} is not supported")
        return known[path]

    def resource(self, source: dict, container: dict) -> str:
        """Return a request or limit of a container, in whole units of its divisor."""
        for one in self.pod["spec"]["containers"]:
            if one["name"] == source.get("containerName"):
                container = one
        kind, name = source["resource"].split(".", 1)
        given = container.get("resources", {}).get(kind, {}).get(name)
        if given is None:
            given = self.offered.get(name, "0") if kind == "limits" else "0"
        divisor = quantity(source.get("divisor") or 1) or 1
        return str(int(-(-quantity(given) // divisor)))

    def variables(self, container: dict) -> dict[str, str]:
        """Return a container's environment variables.

        Raises:
            MissingError: one refers to something that is not there.
        """
        found = self._services()
        for source in container.get("envFrom", []):
            for kind in ("ConfigMap", "Secret"):
                if reference := source.get(f"{kind[0].lower()}{kind[1:]}Ref"):
                    for key, value in self.data(kind, reference).items():
                        found[source.get("prefix", "") + key] = value.decode(errors="replace")
        for one in container.get("env", []):
            value = self._value(one, container, found)
            if value is not None:
                found[one["name"]] = value
        return found

    def _value(self, one: dict, container: dict, known: dict[str, str]) -> str | None:
        source = one.get("valueFrom")
        if not source:
            return expand(one.get("value", ""), known)
        if "fieldRef" in source:
            return self.field(source["fieldRef"]["fieldPath"])
        if "resourceFieldRef" in source:
            return self.resource(source["resourceFieldRef"], container)
        kind = "ConfigMap" if "configMapKeyRef" in source else "Secret"
        data = self.key(kind, source.get("configMapKeyRef") or source["secretKeyRef"])
        return None if data is None else data.decode(errors="replace")

    def _services(self) -> dict[str, str]:
        """Return the variables of the namespace's Services, and of the API's own."""
        found: dict[str, str] = {}
        every = self.api.get("/api/v1/services")["items"]
        for service in every:
            meta, spec = service["metadata"], service["spec"]
            api = (meta["namespace"], meta["name"]) == ("default", "kubernetes")
            linked = self.pod["spec"].get("enableServiceLinks", True)
            if not api and not (linked and meta["namespace"] == self.space):
                continue
            address = spec.get("clusterIP")
            if not address or address == "None":
                continue
            name = meta["name"].upper().replace("-", "_")
            found[f"{name}_SERVICE_HOST"] = address
            for index, port in enumerate(spec.get("ports", [])):
                number, protocol = str(port["port"]), port.get("protocol", "TCP")
                url = f"{protocol.lower()}://{address}:{number}"
                if index == 0:
                    found[f"{name}_SERVICE_PORT"], found[f"{name}_PORT"] = number, url
                if title := port.get("name"):
                    found[f"{name}_SERVICE_PORT_{title.upper().replace('-', '_')}"] = number
                stem = f"{name}_PORT_{number}_{protocol}"
                found |= {stem: url, f"{stem}_ADDR": address, f"{stem}_PORT": number}
                found[f"{stem}_PROTO"] = protocol.lower()
        return found
