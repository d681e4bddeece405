"""Pods as containers of a Docker Engine."""

from __future__ import annotations

import contextlib
import io
import math
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from helpers import containers
from helpers.cluster.agent import docker_holders, docker_options, docker_volumes
from helpers.cluster.agent.addresses import Addresses
from helpers.cluster.agent.docker_holders import POD
from helpers.cluster.agent.docker_streams import Streams
from helpers.cluster.agent.runtime import ImageError, Mount, Settings, StartError, State, Volume

NAME, ATTEMPT = "io.kubernetes.container.name", "lab.attempt"
HOLDER = "POD"  # the name of the container that holds a pod's network and volumes


class DockerPods(Streams):
    """Runs pods on the Engine that this process's environment names.

    A pod with volumes or with several containers gets one more container, the holder: the
    volumes are filled through it, and several containers share its network. It is started only
    for the latter.
    """

    kind, remark = "docker", ""

    def __init__(self, folder: Path, cluster: str, settings: Settings) -> None:
        """Connect to the Engine."""
        self._client = docker.from_env(timeout=120, max_pool_size=32)
        self._api = self._client.api
        self.version = self._client.version()["Version"]
        self._settings, self._addresses = settings, Addresses(settings)
        self._folder = folder.absolute() / "nodes" / settings.name / "pods"
        self._folder.mkdir(exist_ok=True)
        key, value = containers.label().split("=")
        self._network = f"{containers.prefix()}-{cluster}"
        self._labels = {key: value, "lab.cluster": cluster, "lab.node": settings.name}
        self._holders = docker_holders.Holders(self._client, self._network)
        self._filter = [f"{name}={text}" for name, text in self._labels.items()]

    def pods(self) -> set[str]:
        """Return the uids of the pods that have containers."""
        found = self._api.containers(all=True, filters={"label": [*self._filter, POD]})
        return {one["Labels"][POD] for one in found}

    def open(self, pod: dict, mounts: list[Mount]) -> str:
        """See to a pod's address, volumes and holder, and return the address."""
        spec, uid = pod["spec"], pod["metadata"]["uid"]
        own = {
            docker_volumes.store(one): one.volume for one in mounts if docker_volumes.is_store(one)
        }
        if own or self._shared(spec):
            place = self._address(pod) if self._shared(spec) else {}
            self._holders.make(uid, self._label(pod, HOLDER, 0), own, place)
            self._holders.fill(uid, own)
        if spec.get("hostNetwork"):
            return self._settings.address
        return self._addresses.take(pod)

    def close(self, uid: str) -> None:
        """Remove a pod's containers and volumes."""
        chosen = {"label": [*self._filter, f"{POD}={uid}"]}
        for one in self._api.containers(all=True, filters=chosen):
            self.remove(one["Id"])
        for one in self._api.volumes(filters=chosen)["Volumes"] or []:
            self._api.remove_volume(one["Name"])
        shutil.rmtree(self._folder / uid, ignore_errors=True)
        self._addresses.free(uid)

    def write(self, uid: str, volume: Volume) -> None:
        """Write a volume's files anew."""
        self._holders.fill(uid, {volume.store: volume})

    def place(self, uid: str, volume: Volume) -> str:
        """Return nothing: containers have their volumes where they are mounted."""
        return ""

    def ensure_image(
        self, image: str, policy: str, pulling: Callable[[], None], login: Callable[[], dict]
    ) -> str:
        """See to an image by the pull policy, and return its id."""
        try:
            if policy != "Always":
                return self._api.inspect_image(image)["Id"]
        except ImageNotFound:
            if policy == "Never":
                text = f'Container image "{image}" is not present with pull policy of Never'
                raise ImageError("ErrImageNeverPull", text) from None
        except APIError as problem:
            raise ImageError("InvalidImageName", problem.explanation) from None
        pulling()
        name, tag = docker.utils.parse_repository_tag(image)
        given = login()  # not the learner's own
        mirror, how = given.pop("mirror", ""), {"auth_config": given, "stream": True}
        source = f"{mirror}/{name.partition('/')[2]}" if mirror else name
        try:
            for line in self._api.pull(source, tag=tag or "latest", decode=True, **how):
                if "error" in line:
                    raise ImageError("ErrImagePull", f"Error response from daemon: {line['error']}")
            if mirror:
                self._api.tag(f"{source}:{tag or 'latest'}", name, tag or "latest")
            return self._api.inspect_image(image)["Id"]
        except APIError as problem:
            text = f"rpc error: Error response from daemon: {problem.explanation}"
            raise ImageError("ErrImagePull", text) from None

    def start(
        self, pod: dict, container: dict, env: dict[str, str], mounts: list[Mount], attempt: int
    ) -> str:
        """Make a container, put single files into it, and start it."""
        meta, name = pod["metadata"], container["name"]
        title = f"k8s_{name}_{meta['name']}_{meta['namespace']}_{meta['uid']}_{attempt}"
        options = docker_options.process(pod["spec"], container) | self._place(pod)
        try:
            made = self._client.containers.create(
                container["image"],
                name=title,
                labels=self._label(pod, name, attempt),
                environment=env,
                mounts=[
                    docker_volumes.mount(one, self._network)
                    for one in mounts
                    if not docker_volumes.is_file(one)
                ]
                + self._termination_log(meta["uid"], container, attempt),
                **options,
            ).id
            for mount in mounts:
                if docker_volumes.is_file(mount):
                    self._api.put_archive(made, "/", docker_volumes.one_file(mount))
        except APIError as problem:
            raise StartError("CreateContainerError", problem.explanation) from None
        try:
            self._api.start(made)
        except APIError as problem:
            text = f'failed to start container "{name}": Error response from daemon: '
            raise StartError("RunContainerError", text + problem.explanation) from None
        return made

    def state(self, container: str) -> State:
        """Return what a container does."""
        try:
            found = self._api.inspect_container(container)["State"]
        except NotFound:
            return State(False, 137, message="the container has been removed")
        created = found["Status"] == "created"
        return State(
            found["Running"] and not found.get("Restarting"),
            found["ExitCode"] or (128 if created else 0),
            found["OOMKilled"],
            _time(found["StartedAt"]),
            _time(found["FinishedAt"]),
            found["Error"] or ("it was never started" if created else ""),
        )

    def containers(self, uid: str) -> dict[str, list[tuple[int, str]]]:
        """Return a pod's containers by name, the newest last."""
        found: dict[str, list[tuple[int, str]]] = {}
        chosen = {"label": [*self._filter, f"{POD}={uid}"]}
        for one in self._api.containers(all=True, filters=chosen):
            if (name := one["Labels"][NAME]) != HOLDER:
                found.setdefault(name, []).append((int(one["Labels"][ATTEMPT]), one["Id"]))
        return {name: sorted(attempts) for name, attempts in found.items()}

    def read(self, container: str, path: str) -> bytes:
        """Return a small file of a container, or nothing if it is not there."""
        try:
            parts, _ = self._api.get_archive(container, path)
            with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as tar:
                return tar.extractfile(tar.next()).read()
        except (APIError, tarfile.TarError, AttributeError):
            return b""

    def stop(self, container: str, grace: float) -> None:
        """Ask a container to end by its image's signal, wait so many seconds, then kill it."""
        with contextlib.suppress(NotFound):
            self._api.stop(container, timeout=math.ceil(grace))

    def remove(self, container: str) -> None:
        """Remove a container."""
        with contextlib.suppress(NotFound):
            self._api.remove_container(container, force=True, v=True)

    def changes(self) -> Iterator[str]:
        """Yield the uid of a pod whenever one of its containers has ended, for ever."""
        chosen = {"type": "container", "event": "die", "label": self._filter}
        while True:
            try:
                events = self._client.events(decode=True, filters=chosen)
                yield ""
                for event in events:
                    yield event["Actor"]["Attributes"].get(POD, "")
            except (DockerException, requests.RequestException, OSError):
                pass
            time.sleep(1)

    def _label(self, pod: dict, name: str, attempt: int) -> dict[str, str]:
        meta = pod["metadata"]
        found = {POD: meta["uid"], NAME: name, ATTEMPT: str(attempt)}
        found["io.kubernetes.pod.name"] = meta["name"]
        found["io.kubernetes.pod.namespace"] = meta["namespace"]
        return self._labels | found

    def _shared(self, spec: dict) -> bool:
        return len(spec["containers"]) > 1 and not spec.get("hostNetwork")

    def _termination_log(self, uid: str, container: dict, attempt: int) -> list:
        """Return the file for a container's last words; the Engine in a VM has no such."""
        path = container.get("terminationMessagePath", "/dev/termination-log")
        if self._settings.rung != "docker":
            return []
        file = self._folder / uid / f"{container['name']}-{attempt}"
        file.parent.mkdir(exist_ok=True)
        file.touch()
        file.chmod(0o666)
        return [docker.types.Mount(path, str(file), "bind")]

    def _place(self, pod: dict) -> dict:
        """Return where a container's network is."""
        if pod["spec"].get("hostNetwork"):
            return {"network_mode": "host"}
        if self._shared(pod["spec"]):
            holder = docker_holders.name(pod["metadata"]["uid"])
            self._api.start(holder)  # no error if it runs
            return {"network_mode": f"container:{holder}"}
        return self._address(pod)

    def _address(self, pod: dict) -> dict:
        """Return what gives a container its address and its name."""
        place = self._api.create_endpoint_config(ipv4_address=self._addresses.take(pod))
        here = {"network": self._network, "networking_config": {self._network: place}}
        return here | docker_options.names(pod, self._settings.octet)


def _time(text: str) -> str:
    """Return a time of the Engine as the API writes it; empty if it is none."""
    return "" if text.startswith("0001") else text[:19] + "Z"
