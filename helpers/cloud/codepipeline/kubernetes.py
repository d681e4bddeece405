"""The Deploy action of EKS: ``kubectl`` or ``helm`` with the token of the pipeline's role."""

from __future__ import annotations

import base64
import os
import re
import shutil
import tempfile
from pathlib import Path

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest

from helpers import ledger
from helpers.cloud import environment
from helpers.cloud.codepipeline import files
from helpers.cloud.codepipeline.job import Failed, Job
from helpers.cloud.stacks.api import Caller
from helpers.cluster import ladder
from helpers.cluster.api import write_kubeconfig

SECONDS = 10 * 60  # that a deployment may take, unless the action says otherwise
WATCHED = ("deployment", "statefulset", "daemonset")


def deploy(job: Job, call: Caller) -> None:
    """Apply manifests, or a chart, and wait until what they start is there."""
    settings = job.configuration
    cluster = call("eks", "DescribeCluster", {"name": settings["ClusterName"]})["cluster"]
    if "endpoint" not in cluster:
        raise Failed(f"The cluster {cluster['name']} is {cluster['status']}.")
    with tempfile.TemporaryDirectory(prefix="deploy-", dir=environment.folder()) as name:
        folder = Path(name)
        for path, (content, _) in files.unpack(job, call, next(iter(job.inputs))).items():
            file = folder / "source" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        authority = cluster["certificateAuthority"]["data"]
        there = {"server": cluster["endpoint"], "certificate-authority-data": authority}
        user = {"token": token(call, cluster["name"])}
        write_kubeconfig(folder / "kubeconfig", "eks", there, user)
        kube = _Commands(job, folder, settings.get("Namespace", "default"))
        if "HelmReleaseName" in settings:
            kube.helm(settings)
        elif "ManifestFiles" in settings:
            kube.apply([one.strip() for one in settings["ManifestFiles"].split(",")])
        else:
            text = "Either ManifestFiles or HelmReleaseName and HelmChartLocation are required."
            raise Failed(text, "ConfigurationError")
    job.external = {"externalExecutionSummary": f"Deployed to the cluster {cluster['name']}"}
    job.variables = {"EKSClusterName": cluster["name"]}


def token(call: Caller, cluster: str) -> str:
    """Return the token for a cluster, as ``aws eks get-token`` makes it."""
    url = f"{os.environ['AWS_ENDPOINT_URL']}/?Action=GetCallerIdentity&Version=2011-06-15"
    request = AWSRequest("GET", url, headers={"x-k8s-aws-id": cluster})
    SigV4QueryAuth(call.credentials, "sts", call.region, expires=60).add_auth(request)
    return "k8s-aws-v1." + base64.urlsafe_b64encode(request.url.encode()).decode().rstrip("=")


class _Commands:
    """Commands of an action, run in the folder of its input."""

    def __init__(self, job: Job, folder: Path, namespace: str) -> None:
        self.job, self.folder, self.namespace = job, folder, namespace
        self.source = folder / "source"

    def apply(self, names: list[str]) -> None:
        """Apply manifests and wait for the workloads in them."""
        ladder.provide_command()
        options = [word for name in names for word in ("-f", self._filled(name))]
        applied = self.run("kubectl", "apply", *options, "--output=name")
        for one in applied.split():
            if one.startswith(WATCHED):
                seconds = self.job.seconds(SECONDS)
                self.run("kubectl", "rollout", "status", one, f"--timeout={seconds}s")

    def helm(self, settings: dict) -> None:
        """Install a chart, or upgrade its release."""
        if not shutil.which("helm"):
            raise Failed("Helm charts need the program helm, which this machine does not have.")
        release, chart = settings["HelmReleaseName"], settings.get("HelmChartLocation", ".")
        names = [name.strip() for name in settings.get("HelmValuesFiles", "").split(",")]
        values = [word for n in names if n for word in ("--values", self._filled(n))]
        limit = f"--timeout={self.job.seconds(SECONDS)}s"
        self.run("helm", "upgrade", "--install", release, chart, *values, "--wait", limit)

    def run(self, *words: str) -> str:
        """Run a command and return what it prints."""
        variables = environment.without_aws(os.environ)
        variables |= {"KUBECONFIG": str(self.folder / "kubeconfig"), "HOME": str(self.folder)}
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        command = [*words, "--namespace", self.namespace]
        title = f"{words[0]} of pipeline {self.job.pipeline.name}"
        process, entry = ledger.spawn(title, command, env=variables, log=log, cwd=self.source)
        self.job.cancel = process.terminate
        try:
            process.wait()
        finally:
            ledger.stop(entry, patience=1)
        said = log.read_text(errors="replace").strip()
        if code := process.returncode:
            how = "failed" if code > 0 else f"was ended by signal {-code}"
            raise Failed(f"{' '.join(words[:2])} {how}: {said}")
        return said

    def _filled(self, name: str) -> str:
        """Return the path of a file of the input, once the action's variables are put into it."""
        path = self.source / name
        if not path.is_file() or not path.resolve().is_relative_to(self.source.resolve()):
            text = f"File [{name}] does not exist in artifact [{next(iter(self.job.inputs))}]"
            raise Failed(text, "ConfigurationError")
        value = lambda found: self.job.environment.get(found[1] or found[2], found[0])  # noqa: E731
        path.write_text(re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, path.read_text()))
        return name
