"""What Services mean: which addresses lead where, and which names there are."""

from __future__ import annotations

from collections.abc import Callable

from helpers.cluster.dns import ZONE


def targets(port: dict, endpoints: dict) -> list[list]:
    """Return ``[address, port]`` of what is ready behind a port of a Service."""
    return [
        [address["ip"], one["port"]]
        for subset in endpoints.get("subsets") or []
        for one in subset.get("ports") or []
        if one.get("name") == port.get("name")
        for address in subset.get("addresses") or []
    ]


def seconds(service: dict) -> int:
    """Return for how long a client keeps its target, in seconds; 0 is not at all."""
    if service["spec"].get("sessionAffinity") != "ClientIP":
        return 0
    given = service["spec"].get("sessionAffinityConfig") or {}
    return given.get("clientIP", {}).get("timeoutSeconds", 10800)


def ingress(service: dict) -> list[dict]:
    """Return the addresses that a LoadBalancer's status names: ``{"ip": address}`` each."""
    balancer = service.get("status", {}).get("loadBalancer") or {}
    return [{"ip": one.get("ip", "")} for one in balancer.get("ingress") or []]


def addresses(node: dict) -> list[str]:
    """Return the addresses at which a Node listens."""
    known = node.get("status", {}).get("addresses") or []
    return [one["address"] for one in known if one["type"] == "InternalIP"]


def names(service: dict, endpoints: dict, local: Callable[[str], str]) -> dict[str, dict]:
    """Return the names that a Service gives, for ``dns.Resolver``.

    Args:
        service: it.
        endpoints: its Endpoints, or ``{}``.
        local: says where an address of the cluster really is.
    """
    spec, meta = service["spec"], service["metadata"]
    name = f"{meta['name']}.{meta['namespace']}.svc.{ZONE}".lower()
    if spec["type"] == "ExternalName":
        return {name: {"CNAME": spec["externalName"]}}
    if spec.get("clusterIP") != "None":
        found = {name: {"A": [local(spec["clusterIP"])] if spec.get("clusterIP") else []}}
        for port in spec.get("ports") or []:
            if port.get("name"):
                found[_service(port, name)] = {"SRV": [[port["port"], name]]}
        return found
    found = {name: {"A": []}}
    for subset in endpoints.get("subsets") or []:
        for address in subset.get("addresses") or []:
            host = f"{address.get('hostname') or address['ip'].replace('.', '-')}.{name}"
            found[name]["A"].append(local(address["ip"]))
            found[host] = {"A": [local(address["ip"])]}
            for port in subset.get("ports") or []:
                if port.get("name"):
                    one = found.setdefault(_service(port, name), {"SRV": []})
                    one["SRV"].append([port["port"], host])
    return found


def _service(port: dict, name: str) -> str:
    return f"_{port['name']}._{port.get('protocol', 'TCP')}.{name}".lower()
