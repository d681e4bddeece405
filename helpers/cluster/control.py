"""The control plane: etcd and the three parts of Kubernetes, as ordinary processes on loopback."""

from __future__ import annotations

import base64
import contextlib
import os
import time
from pathlib import Path

import urllib3

from helpers import ledger, machine
from helpers.cluster import programs, versions
from helpers.cluster.api import Api, ApiError, write_kubeconfig
from helpers.containers.certificates import Authority

# A part that ends is started again, as a machine's init system would do.
AGAIN = ["sh", "-c", 'while :; do "$@"; sleep 1; done', "sh"]
# The garbage collector runs earlier than by default, which saves some 80 MB.
ENVIRONMENT = {"GOGC": "40"}
# A node that is silent is given up sooner than by default (40 s and 300 s), to be watched.
SILENT_SECONDS, GIVE_UP_SECONDS = 12, 5
EGRESS = """\
apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport: {uds: {udsName: egress.sock}}
"""
PARTS = {
    "kube-apiserver": "",
    "kube-controller-manager": "system:kube-controller-manager",
    "kube-scheduler": "system:kube-scheduler",
}


class ControlError(RuntimeError):
    """A control plane does not start; the message says what its log says."""


def start(folder: Path, name: str, octet: int, webhook: str = "") -> dict:
    """Start a control plane and wait until its API answers.

    Args:
        folder: receives its certificates, kubeconfigs, logs and data.
        name: the cluster's name.
        octet: the second number of the cluster's addresses (10.OCTET.0.0/16).
        webhook: a kubeconfig file that leads to whoever knows tokens, or empty.

    Returns:
        Facts: ``port`` of the API and ``release``.

    Raises:
        ControlError: it does not start.
        ProgramError: its programs cannot be had.
    """
    found, etcd = programs.find(), _start_etcd(folder, name)
    (port,) = machine.free_ports(1)
    authority, certs = Authority(folder), folder / "certs"
    inside = (f"10.{octet}.128.1", f"10.{octet}.127.1", "127.0.0.1")
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
    authority.issue(certs / "apiserver", "kube-apiserver", addresses=inside, names=names)
    authority.issue(certs / "kubelet-client", "kube-apiserver", "system:masters")
    authority.issue(certs / "service-accounts", "service accounts")
    (folder / "egress.yaml").write_text(EGRESS)
    server = f"https://127.0.0.1:{port}"
    for user in ("kubeconfig", "network.kubeconfig"):
        who = (user.removesuffix("kubeconfig").strip(".") or "admin", "system:masters")
        issue_kubeconfig(folder / user, name, server, authority, *who)
    for part, user in PARTS.items():
        if user:
            issue_kubeconfig(certs / f"{part}.kubeconfig", name, server, authority, user)
    options = _options(folder, octet, etcd, port, webhook)
    for part in PARTS:
        command = [*found.commands[part], *options[part], *versions.flags(part, found.version)]
        api = part == "kube-apiserver"
        _spawn(folder, f"{part} of {name}", part, command, **({"port": port} if api else {}))
        if api:  # the others would look for it for seconds
            _wait(folder, name)
    return {"port": port, "release": found.release}


def issue_kubeconfig(
    path: Path, cluster: str, server: str, authority: Authority, user: str, *groups: str
) -> None:
    """Write a kubeconfig file that stands alone: with it, one is a user of a cluster.

    Args:
        path: the file.
        cluster: the cluster's name.
        server: the API's URL.
        authority: whoever signs for the API and for its users.
        user: the user's name.
        groups: the user's groups.
    """
    certificate, key = authority.issue(path.with_name(f"{path.name}-client"), user, *groups)

    def text(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    who = {"client-certificate-data": text(certificate), "client-key-data": text(key)}
    where = {"server": server, "certificate-authority-data": text(authority.path)}
    certificate.unlink()
    key.unlink()
    write_kubeconfig(path, cluster, where, who)


def _start_etcd(folder: Path, name: str) -> int:
    """Start the database, which answers nobody without a certificate, and return its port."""
    port, peers = machine.free_ports(2)
    pair = Authority(folder).issue(folder / "certs/etcd", "etcd", addresses=("127.0.0.1",))
    certificate, key = map(str, pair)
    clients, peer = f"https://127.0.0.1:{port}", f"https://127.0.0.1:{peers}"
    options = {
        "data-dir": folder / "etcd",
        "listen-client-urls": clients,
        "advertise-client-urls": clients,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
    }
    for prefix in ("", "peer-"):
        options |= {f"{prefix}cert-file": certificate, f"{prefix}key-file": key}
        options |= {f"{prefix}trusted-ca-file": folder / "ca.pem"}
    words = [f"--{option}={value}" for option, value in options.items()]
    words += ["--client-cert-auth", "--peer-client-cert-auth", "--unsafe-no-fsync"]
    _spawn(folder, f"etcd of {name}", "etcd", [str(programs.etcd()), *words])
    return port


def _options(folder: Path, octet: int, etcd: int, port: int, webhook: str) -> dict[str, list[str]]:
    certs = folder / "certs"
    server = {
        "etcd-servers": f"https://127.0.0.1:{etcd}",
        "etcd-cafile": "ca.pem",
        "etcd-certfile": certs / "etcd.pem",
        "etcd-keyfile": certs / "etcd.key",
        "bind-address": "127.0.0.1",
        "secure-port": port,
        "advertise-address": f"10.{octet}.127.1",
        "tls-cert-file": certs / "apiserver.pem",
        "tls-private-key-file": certs / "apiserver.key",
        "client-ca-file": "ca.pem",
        "kubelet-client-certificate": certs / "kubelet-client.pem",
        "kubelet-client-key": certs / "kubelet-client.key",
        "kubelet-certificate-authority": "ca.pem",
        "kubelet-preferred-address-types": "InternalIP",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": certs / "service-accounts.pem",
        "service-account-signing-key-file": certs / "service-accounts.key",
        "service-cluster-ip-range": f"10.{octet}.128.0/17",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "egress-selector-config-file": "egress.yaml",
        "allow-privileged": "true",
        "default-not-ready-toleration-seconds": GIVE_UP_SECONDS,
        "default-unreachable-toleration-seconds": GIVE_UP_SECONDS,
        "profiling": "false",
    }
    if webhook:
        server |= {"authentication-token-webhook-config-file": webhook}
        server |= {"authentication-token-webhook-version": "v1"}
        server |= {"authentication-token-webhook-cache-ttl": "2s"}
    manager = {
        "service-account-private-key-file": certs / "service-accounts.key",
        "root-ca-file": "ca.pem",
        "cluster-signing-cert-file": "ca.pem",
        "cluster-signing-key-file": "ca.key",
        "use-service-account-credentials": "true",
        "node-monitor-grace-period": f"{SILENT_SECONDS}s",
        "node-monitor-period": "2s",
        "kube-api-qps": 200,
        "kube-api-burst": 400,
    }
    options = {"kube-apiserver": server, "kube-controller-manager": manager, "kube-scheduler": {}}
    for part, user in PARTS.items():
        if user:
            alone = {"leader-elect": "false", "secure-port": 0, "profiling": "false"}
            options[part] |= {"kubeconfig": certs / f"{part}.kubeconfig", **alone}
    return {
        part: [f"--{name}={value}" for name, value in chosen.items()]
        for part, chosen in options.items()
    }


def _spawn(folder: Path, title: str, part: str, command: list[str], **facts) -> None:
    environment = {**os.environ, **ENVIRONMENT}
    log = folder / f"{part}.log"
    facts |= {"cluster": folder.name, "patience": 0.3}  # else an API server waits for its watchers
    ledger.spawn(title, [*AGAIN, *command], env=environment, log=log, cwd=folder, facts=facts)


def _wait(folder: Path, name: str, seconds: float = 60) -> None:
    """Wait until the API is ready and has made what every cluster has."""
    deadline, api = time.monotonic() + seconds, Api(folder / "kubeconfig")
    while True:
        with contextlib.suppress(ApiError, urllib3.exceptions.HTTPError, ValueError):
            api.get("/api/v1/namespaces/kube-system")
            api.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node")
            return
        if time.monotonic() > deadline:
            said = (folder / "kube-apiserver.log").read_text(errors="replace").splitlines()
            wrong = [line for line in said if line.startswith(("Error", "F", "panic"))]
            why = (wrong or said or ["nothing in its log"])[-1]
            raise ControlError(f"The API of {name} does not answer after {seconds} s: {why}")
        time.sleep(0.05)
