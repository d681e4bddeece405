"""What a node needs from whatever runs its containers: an Engine, or plain processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


class StartError(RuntimeError):
    """A container cannot be made or started.

    Attributes:
        reason: ``CreateContainerError`` or ``RunContainerError``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class State:
    """What a container does, or how it ended. Times are RFC 3339 texts.

    ``message`` says why it could not be started; it is empty if it could.
    """

    running: bool
    exit_code: int = 0
    oom: bool = False
    started: str = ""
    finished: str = ""
    message: str = ""


@dataclass
class Volume:
    """A volume of a pod.

    Attributes:
        store: its name among all that the node keeps, or the absolute path of a hostPath.
        files: paths, contents and modes of what comes from the API (ConfigMap, Secret, …); None
            for a volume that the containers write.
        kept: whether it outlives the pod.
        memory: whether it is held in memory.
    """

    store: str
    files: dict[str, tuple[bytes, int]] | None = None
    kept: bool = False
    memory: bool = False


@dataclass(frozen=True)
class Mount:
    """A volume, or a part of it, at a path of a container's file system."""

    path: str
    volume: Volume
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
        """Let go of it; in other threads ``read`` then ends, and ``write`` fails."""


class Runtime(Protocol):
    """Runs the containers of pods. All calls block; containers are named by opaque texts."""

    kind: str
    version: str
    remark: str  # what about its pods is not as elsewhere, or empty

    def pods(self) -> set[str]:
        """Return the uids of the pods of which something is there; fails if nothing works."""

    def open(self, pod: dict, mounts: list[Mount]) -> str:
        """See to a pod's address and volumes, and return the address."""

    def write(self, uid: str, volume: Volume) -> None:
        """Bring what a pod sees of a volume of files up to date."""

    def close(self, uid: str) -> None:
        """Remove everything of a pod."""

    def place(self, uid: str, volume: Volume) -> str:
        """Return where a volume is if it cannot be where it is mounted, or an empty text."""

    def ensure_image(
        self, image: str, policy: str, pulling: Callable[[], None], login: Callable[[], dict]
    ) -> str:
        """See to an image by the pull policy, and return its id; raises ImageError.

        ``pulling`` is called before a pull, and ``login`` for ``username`` and ``password``.
        """

    def start(
        self, pod: dict, container: dict, env: dict[str, str], mounts: list[Mount], attempt: int
    ) -> str:
        """Start a container of a pod and return its id; raises StartError."""

    def state(self, container: str) -> State:
        """Return what a container does."""

    def containers(self, uid: str) -> dict[str, list[tuple[int, str]]]:
        """Return a pod's containers by name: attempt and id of each, the newest last."""

    def read(self, container: str, path: str) -> bytes:
        """Return a small file of a container, or nothing if it is not there."""

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
        """Yield what a container has written; ``since`` is in seconds since the epoch.

        So that a reader may leave while it follows a silent container, it has a ``close`` for
        other threads, or yields nothing (``b""``) now and then.
        """

    def exec(self, container: str, argv: list[str], *, stdin: bool, tty: bool) -> Exec:
        """Run a command in a container."""

    def attach(self, container: str, *, stdin: bool, tty: bool) -> Exec:
        """Join the streams of a container's own process."""

    def changes(self) -> Iterator[str]:
        """Yield the uid of a pod whenever one of its containers has ended, for ever.

        An empty text means that such ends may have been missed.
        """


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
        logins: the URL of whoever knows how the node logs in to registries, or empty.
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
    logins: str = ""
