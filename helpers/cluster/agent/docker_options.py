"""What a pod's specification is in the options of a Docker Engine."""

from __future__ import annotations

from helpers.cluster.agent.environment import quantity


def process(spec: dict, container: dict) -> dict:
    """Return what a container's specification says of its process and its limits."""
    resources = container.get("resources", {})
    requests_, limits = resources.get("requests", {}), resources.get("limits", {})
    rights = spec.get("securityContext", {}) | container.get("securityContext", {})
    found = {
        "entrypoint": container.get("command") or None,
        "command": container.get("args") or None,
        "working_dir": container.get("workingDir"),
        "tty": container.get("tty", False),
        "stdin_open": container.get("stdin", False),
        "detach": not container.get("stdinOnce", False),  # or its input ends with the first
        "privileged": rights.get("privileged", False),
        "read_only": rights.get("readOnlyRootFilesystem", False),
        "cap_add": rights.get("capabilities", {}).get("add"),
        "cap_drop": rights.get("capabilities", {}).get("drop"),
        "healthcheck": {"test": ["NONE"]},  # the image's own: a pod has probes instead
        "cpu_shares": max(2, int(quantity(requests_.get("cpu", 0)) * 1024)),
    }
    if "runAsUser" in rights or "runAsGroup" in rights:
        found["user"] = str(rights.get("runAsUser", 0))
        if "runAsGroup" in rights:
            found["user"] += f":{rights['runAsGroup']}"
    if "memory" in limits:
        found["mem_limit"] = found["memswap_limit"] = int(quantity(limits["memory"]))
    if "cpu" in limits:
        found["nano_cpus"] = int(quantity(limits["cpu"]) * 10**9)
    return found


def names(pod: dict, octet: int) -> dict:
    """Return how a pod is called, and where it looks names up (10.N.128.10 of the cluster)."""
    meta, spec = pod["metadata"], pod["spec"]
    found = {"hostname": spec.get("hostname") or meta["name"][:63]}
    if spec.get("subdomain"):
        space = f"{spec['subdomain']}.{meta['namespace']}.svc.cluster.local"
        found["domainname"] = space
    found["extra_hosts"] = {
        name: alias["ip"] for alias in spec.get("hostAliases", []) for name in alias["hostnames"]
    }
    more = spec.get("dnsConfig", {})
    servers, search, options = [], [], []
    if spec.get("dnsPolicy", "ClusterFirst").startswith("ClusterFirst"):
        servers, options = [f"10.{octet}.128.10"], ["ndots:5"]
        search = [f"{meta['namespace']}.svc.cluster.local", "svc.cluster.local"]
        search.append("cluster.local")
    options += [
        one["name"] + (f":{one['value']}" if one.get("value") else "")
        for one in more.get("options", [])
    ]
    found["dns"] = servers + more.get("nameservers", [])
    found["dns_search"] = search + more.get("searches", [])
    found["dns_opt"] = options
    return found
