"""Pods as containers of a Docker Engine."""

from __future__ import annotations

import contextlib
import io
import math
import shutil
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from helpers import containers
from helpers.cluster.agent.addresses import Addresses
from helpers.cluster.agent.docker_streams import DockerLog, DockerStream
from helpers.cluster.agent.environment import quantity
from helpers.cluster.agent.runtime import ImageError, Mount, Settings, StartError, State, Volume
from helpers.vm import initramfs

POD, NAME, ATTEMPT = "io.kubernetes.pod.uid", "io.kubernetes.container.name", "lab.attempt"
HOLDER = "POD"  # the name of the container that holds a pod's network and volumes
MIB = 2**20


class DockerPods:
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
        self._network, self._holder_image = f"{key}-{value}-{cluster}", f"{key}-{value}/holder"
        self._labels = {key: value, "lab.cluster": cluster, "lab.node": settings.name}
        self._filter = [f"{name}={text}" for name, text in self._labels.items()]

    def pods(self) -> set[str]:
        """Return the uids of the pods that have containers."""
        found = self._api.containers(all=True, filters={"label": [*self._filter, POD]})
        return {one["Labels"][POD] for one in found}

    def open(self, pod: dict, mounts: list[Mount]) -> str:
        """See to a pod's address, volumes and holder, and return the address."""
        spec, uid = pod["spec"], pod["metadata"]["uid"]
        own = {_store(one): one.volume for one in mounts if _is_store(one)}
        if own or self._shared(spec):
            self._make_holder(pod, own)
            self._fill(uid, own)
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
        self._fill(uid, {volume.store: volume})

    def place(self, uid: str, volume: Volume) -> str:
        """Return nothing: containers have their volumes where they are mounted."""
        return ""

    def ensure_image(self, image: str, policy: str, pulling: Callable[[], None]) -> str:
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
        name, _, tag = image.rpartition(":")
        if not name or "/" in tag:
            name, tag = image, "latest"
        try:
            for line in self._api.pull(name, tag=tag, stream=True, decode=True):
                if "error" in line:
                    raise ImageError("ErrImagePull", f"Error response from daemon: {line['error']}")
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
        options = self._options(pod["spec"], container) | self._place(pod)
        try:
            made = self._client.containers.create(
                container["image"],
                name=title,
                labels=self._label(pod, name, attempt),
                environment=env,
                mounts=[self._mount(one) for one in mounts if not _is_file(one)]
                + self._termination_log(meta["uid"], container, attempt),
                **options,
            ).id
            for mount in mounts:
                if _is_file(mount):
                    self._api.put_archive(made, "/", _one_file(mount))
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

    def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        timestamps: bool = False,
        limit: int | None = None,
    ) -> DockerLog:
        """Yield what a container has written; ``close`` ends it from any thread."""
        stream = self._api.logs(
            container,
            stream=True,
            follow=follow,
            tail="all" if tail is None else tail,
            since=since,
            timestamps=timestamps,
        )
        return DockerLog(stream, limit)

    def exec(self, container: str, argv: list[str], *, stdin: bool, tty: bool) -> DockerStream:
        """Run a command in a container."""
        one = self._api.exec_create(container, argv, stdin=stdin, tty=tty)["Id"]

        def code() -> int:
            while (found := self._api.exec_inspect(one))["Running"]:
                time.sleep(0.02)
            return found["ExitCode"]

        return DockerStream(
            self._api.exec_start(one, tty=tty, socket=True),
            tty=tty,
            code=code,
            size=lambda width, height: self._api.exec_resize(one, height, width),
        )

    def attach(self, container: str, *, stdin: bool, tty: bool) -> DockerStream:
        """Join the streams of a container's own process."""
        streams = {"stdout": 1, "stderr": 1, "stream": 1, "stdin": int(stdin)}
        return DockerStream(
            self._api.attach_socket(container, params=streams),
            tty=tty,
            code=lambda: self._api.wait(container)["StatusCode"],
            size=lambda width, height: self._api.resize(container, height, width),
        )

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

    def _make_holder(self, pod: dict, own: dict[str, Volume]) -> None:
        uid, temporary = (
            pod["metadata"]["uid"],
            docker.types.DriverConfig("local", {"type": "tmpfs", "device": "tmpfs"}),
        )
        options = {
            "name": _holder(uid),
            "labels": self._label(pod, HOLDER, 0),
            "mounts": [
                docker.types.Mount(
                    f"/{store}",
                    self._store_name(store),
                    "volume",
                    no_copy=True,
                    labels=self._labels | ({} if volume.kept else {POD: uid}),
                    driver_config=temporary if volume.memory else None,
                )
                for store, volume in own.items()
            ],
        }
        if self._shared(pod["spec"]):
            options |= self._network_options(pod)
        for attempt in range(2):
            try:
                self._client.containers.create(self._holder_image, **options)
            except ImageNotFound:
                if attempt:
                    raise
                self._import_holder()
            except APIError as problem:
                if problem.status_code != 409:  # then it is there already
                    raise

    def _import_holder(self) -> None:
        self._api.import_image_from_data(
            _archive({"busybox": (initramfs.busybox().read_bytes(), 0o755)}),
            repository=self._holder_image,
            changes=[f"LABEL {containers.label()}", 'CMD ["/busybox", "tail", "-f", "/dev/null"]'],
        )

    def _fill(self, uid: str, own: dict[str, Volume]) -> None:
        """Write files as the kubelet does: a link leads to the folder of the newest version."""
        folders, files, links = [], {}, {}
        for store, volume in own.items():
            if volume.kept:
                continue
            folders.append(store)
            version = f"..{time.time_ns()}"
            for path, entry in (volume.files or {}).items():
                files[f"{store}/{version}/{path}"] = entry
                links[f"{store}/..data"] = version
                top = path.split("/")[0]
                links[f"{store}/{top}"] = f"..data/{top}"
        if folders:
            self._api.put_archive(_holder(uid), "/", _archive(files, links, folders))

    def _store_name(self, store: str) -> str:
        return f"{self._network}-{store}"

    def _mount(self, mount: Mount) -> docker.types.Mount:
        if mount.volume.store.startswith("/"):
            source = str(Path(mount.volume.store) / mount.sub_path)
            return docker.types.Mount(mount.path, source, "bind", read_only=mount.read_only)
        source = self._store_name(_store(mount))
        return docker.types.Mount(
            mount.path, source, "volume", read_only=mount.read_only, no_copy=True
        )

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
            holder = _holder(pod["metadata"]["uid"])
            self._api.start(holder)  # no error if it runs
            return {"network_mode": f"container:{holder}"}
        return self._network_options(pod)

    def _network_options(self, pod: dict) -> dict:
        meta, spec, octet = pod["metadata"], pod["spec"], self._settings.octet
        address = self._addresses.take(pod)
        place = self._api.create_endpoint_config(ipv4_address=address)
        found = {"network": self._network, "networking_config": {self._network: place}}
        found["hostname"] = spec.get("hostname") or meta["name"][:63]
        if spec.get("subdomain"):
            space = f"{spec['subdomain']}.{meta['namespace']}.svc.cluster.local"
            found["domainname"] = space
        found["extra_hosts"] = {
            name: alias["ip"]
            for alias in spec.get("hostAliases", [])
            for name in alias["hostnames"]
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

    def _options(self, spec: dict, container: dict) -> dict:
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


def _holder(uid: str) -> str:
    return f"k8s_{HOLDER}_{uid}"


def _is_file(mount: Mount) -> bool:
    """Say whether only one file of a volume is wanted: it is put in once, as Kubernetes does."""
    return mount.volume.files is not None and bool(mount.sub_path)


def _is_store(mount: Mount) -> bool:
    return not mount.volume.store.startswith("/") and not _is_file(mount)


def _store(mount: Mount) -> str:
    """Return the name of the Engine's volume; each sub-path of a volume has one of its own."""
    part = mount.sub_path.strip("/").replace("/", "-")
    return mount.volume.store + (f"-{part}" if part else "")


def _one_file(mount: Mount) -> bytes:
    files = {
        mount.path.strip("/") + path.removeprefix(mount.sub_path): entry
        for path, entry in mount.volume.files.items()
        if path == mount.sub_path or path.startswith(f"{mount.sub_path}/")
    }
    return _archive(files)


def _archive(
    files: dict[str, tuple[bytes, int]],
    links: dict[str, str] | None = None,
    folders: Iterable[str] = (),
) -> bytes:
    """Return a tar archive of folders that everybody may write to, files and links."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in folders:
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(member)
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(content), mode, int(time.time())
            tar.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return data.getvalue()


def _time(text: str) -> str:
    """Return a time of the Engine as the API writes it; empty if it is none."""
    return "" if text.startswith("0001") else text[:19] + "Z"
