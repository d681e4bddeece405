"""Holders: the containers that hold what the others of a pod share, its network and volumes."""

from __future__ import annotations

import docker
from docker.errors import APIError, ImageNotFound

from helpers import containers
from helpers.cluster.agent.docker_volumes import archive, content
from helpers.cluster.agent.runtime import Volume
from helpers.vm import initramfs

POD = "io.kubernetes.pod.uid"


def name(uid: str) -> str:
    """Return the name of a pod's holder."""
    return f"k8s_POD_{uid}"


class Holders:
    """Makes holders. Volumes are filled through them, which works while they do not run."""

    def __init__(self, client: docker.DockerClient, stem: str) -> None:
        """Use an Engine; names of volumes begin with ``stem``."""
        self._client, self._stem = client, stem
        self._image = f"{containers.prefix()}/holder"

    def make(self, uid: str, labels: dict, own: dict[str, Volume], place: dict) -> None:
        """Make a pod's holder and its volumes, unless they are there.

        Args:
            uid: the pod's.
            labels: of the holder.
            own: the volumes by name.
            place: options that say where its network is.
        """
        memory = docker.types.DriverConfig("local", {"type": "tmpfs", "device": "tmpfs"})
        options = {"name": name(uid), "labels": labels, **place}
        options["mounts"] = [
            docker.types.Mount(
                f"/{store}",
                f"{self._stem}-{store}",
                "volume",
                no_copy=True,
                labels={key: text for key, text in labels.items() if not volume.kept or key != POD},
                driver_config=memory if volume.memory else None,
            )
            for store, volume in own.items()
        ]
        try:
            try:
                self._client.containers.create(self._image, **options)
            except ImageNotFound:
                self._import_image()
                self._client.containers.create(self._image, **options)
        except APIError as problem:
            if problem.status_code != 409:  # it is there already
                raise

    def fill(self, uid: str, own: dict[str, Volume]) -> None:
        """Write the files of volumes anew."""
        self._client.api.put_archive(name(uid), "/", content(own))

    def _import_image(self) -> None:
        self._client.api.import_image_from_data(
            archive({"busybox": (initramfs.busybox().read_bytes(), 0o755)}),
            repository=self._image,
            changes=[f"LABEL {containers.label()}", 'CMD ["/busybox", "tail", "-f", "/dev/null"]'],
        )
