"""What a node needs from whatever runs its containers: an Engine, or plain processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol


class ImageError(RuntimeError):
    """An image cannot be had.

    Attributes:
        reason: the word that Kubernetes has for it (``ErrImagePull``, ``ErrImageNeverPull``,
            ``InvalidImageName``).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class State:
    """What a container does, or how it ended. Times are RFC 3339 texts."""

    running: bool
    exit_code: int = 0
    oom: bool = False
    started: str = ""
    finished: str = ""
    message: str = ""


@dataclass(frozen=True)
class Mount:
    """Something put into a container's file system at a path.

    Attributes:
        path: where.
        files: names and contents, for what comes from the API (ConfigMap, Secret, …).
        mode: permissions of those files.
        volume: name of a volume that the pod's containers share, for everything else.
        read_only: whether the container may write to it.
        sub_path: the part of it that is meant, or empty.
    """

    path: str
    files: dict[str, bytes] | None = None
    mode: int = 0o644
    volume: str = ""
    read_only: bool = False
    sub_path: str = ""


class Exec(Protocol):
    """A command that runs in a container, or the container's own, with its streams."""

    def write(self, data: bytes) -> None:
        """Send to its standard input."""

    def close_stdin(self) -> None:
        """End its standard input."""

    def read(self) -> tuple[int, bytes] | None:
        """Return the next output and its channel (1 or 2), or None at the end."""

    def exit_code(self) -> int:
        """Return its exit status, once it has ended."""

    def resize(self, width: int, height: int) -> None:
        """Set the size of its terminal in characters."""

    def close(self) -> None:
        """Let go of it."""


class Runtime(Protocol):
    """Runs the containers of pods. All calls block; containers are named by opaque texts."""

    kind: str
    version: str

    def open(self, pod: dict) -> str:
        """Make a pod's place in the network, if it is not there, and return the pod's address."""

    def close(self, uid: str) -> None:
        """Remove everything of a pod."""

    def ensure_image(self, image: str, policy: str) -> str:
        """See to an image by the pull policy, and return its id; raises ImageError."""

    def start(
        self, pod: dict, container: dict, env: dict[str, str], mounts: list[Mount], attempt: int
    ) -> str:
        """Start a container of a pod and return its id."""

    def state(self, container: str) -> State:
        """Return what a container does."""

    def containers(self, uid: str) -> dict[str, list[tuple[int, str]]]:
        """Return a pod's containers by name: attempt and id of each, the newest last."""

    def stop(self, container: str, grace: float) -> None:
        """Ask a container to end, wait so many seconds, then kill it."""

    def remove(self, container: str) -> None:
        """Remove a container that has ended."""

    def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        timestamps: bool = False,
        limit: int | None = None,
    ) -> Iterator[bytes]:
        """Yield what a container has written; ``since`` is in seconds since the epoch."""

    def exec(self, container: str, argv: list[str], *, stdin: bool, tty: bool) -> Exec:
        """Run a command in a container."""

    def attach(self, container: str, *, stdin: bool, tty: bool) -> Exec:
        """Join the streams of a container's own process."""

    def changes(self) -> Iterator[str]:
        """Yield the uid of a pod whenever one of its containers has ended, for ever."""


@dataclass
class Settings:
    """What a node is told when it is made (``node.json``).

    Attributes:
        name: the node's name.
        index: its number k in the cluster, from 1: its pods live in 10.N.k.0/24.
        octet: the cluster's N.
        address: its own loopback address.
        rung: what pods are: ``docker``, ``docker in a VM`` or ``process``.
        cpus: processors it offers.
        memory_mb: memory it offers.
        pods: how many pods it takes.
        labels: labels of the Node.
        taints: taints of the Node.
        provider: its providerID, or empty.
    """

    name: str
    index: int
    octet: int
    address: str
    rung: str
    cpus: float = 2
    memory_mb: int = 4096
    pods: int = 110
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[dict] = field(default_factory=list)
    provider: str = ""
