"""The addresses that a node gives to its pods."""

from __future__ import annotations

import threading

from helpers.cluster.agent.runtime import Settings


class Addresses:
    """Gives every pod one of 10.N.k.2 … 10.N.k.254, the one longest unused first."""

    def __init__(self, settings: Settings) -> None:
        """Begin with all of them free."""
        stem = f"10.{settings.octet}.{settings.index}"
        self._free = [f"{stem}.{last}" for last in range(2, 255)]
        self._taken: dict[str, str] = {}
        self._lock = threading.Lock()

    def take(self, pod: dict) -> str:
        """Return a pod's address: the one it has, or a new one.

        Raises:
            OSError: none is free.
        """
        uid, known = pod["metadata"]["uid"], pod.get("status", {}).get("podIP")
        with self._lock:
            if uid not in self._taken:
                if not self._free:
                    raise OSError("The node has no free address for a pod.")
                found = known if known in self._free else self._free[0]
                self._free.remove(found)
                self._taken[uid] = found
            return self._taken[uid]

    def free(self, uid: str) -> None:
        """Take a pod's address back."""
        with self._lock:
            if address := self._taken.pop(uid, None):
                self._free.append(address)
