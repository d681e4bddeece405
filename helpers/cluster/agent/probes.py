"""Probes and hooks: asking a container by HTTP, by a connection or by a command."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

from helpers.cluster import network
from helpers.cluster.agent.runtime import Runtime


class Handler:
    """Carries out what a probe or hook says, for one container."""

    def __init__(self, runtime: Runtime, folder: Path, address: str, spec: dict) -> None:
        """Ask a container of the pod with this address; the folder is the cluster's."""
        self._runtime, self._folder, self._address = runtime, folder, address
        self._ports = {port.get("name"): port["containerPort"] for port in spec.get("ports", [])}

    def __call__(self, action: dict, container: str, seconds: float) -> tuple[bool | None, str]:
        """Do it and return whether it went well, and what came out.

        While the cluster's network is away nobody can tell: then the first is None.
        """
        try:
            if "exec" in action:
                return self._command(action["exec"]["command"], container, seconds)
            if "httpGet" in action:
                return self._get(action["httpGet"], seconds)
            if "tcpSocket" in action:
                self._dial(action["tcpSocket"], seconds).close()
                return True, ""
            time.sleep(action["sleep"]["seconds"])
            return True, ""
        except TimeoutError:
            return False, "context deadline exceeded (timed out while waiting for an answer)"
        except (OSError, http.client.HTTPException) as problem:
            away = getattr(problem, "errno", None) in (errno.ENOENT, errno.ECONNREFUSED)
            return None if away else False, str(problem)

    def _command(self, argv: list[str], container: str, seconds: float) -> tuple[bool, str]:
        command = self._runtime.exec(container, argv, stdin=False, tty=False)
        late = threading.Timer(seconds, command.close)
        late.start()
        said = b""
        try:
            with contextlib.suppress(OSError, ValueError):
                while part := command.read():
                    said += part[1]
            if late.finished.is_set():
                return False, f"command {' '.join(argv)!r} timed out after {seconds:g}s"
            return command.exit_code() == 0, said.decode(errors="replace")
        finally:
            late.cancel()
            command.close()

    def _get(self, action: dict, seconds: float) -> tuple[bool, str]:
        scheme = action.get("scheme", "HTTP").lower()
        link = self._dial(action, seconds)
        if scheme == "https":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            link = context.wrap_socket(link)
        host = action.get("host") or self._address
        ask = http.client.HTTPConnection(host, self._port(action))
        ask.sock = link
        headers = {one["name"]: one["value"] for one in action.get("httpHeaders", [])}
        with contextlib.closing(ask):
            ask.request("GET", action.get("path", "/"), headers={"User-Agent": "probe"} | headers)
            status = ask.getresponse().status
        return 200 <= status < 400, f"HTTP probe failed with statuscode: {status}"

    def _port(self, action: dict) -> int:
        port = action["port"]
        if port in self._ports:
            return self._ports[port]
        if not str(port).isdigit():
            raise ConnectionError(f"the container has no port {port!r}")
        return int(port)

    def _dial(self, action: dict, seconds: float) -> socket.socket:
        host, port = action.get("host") or self._address, self._port(action)
        return network.dial(self._folder, host, port, seconds)


class Probe(threading.Thread):
    """One probe of one container, repeated until it is stopped.

    Attributes:
        ok: what it says now, by its thresholds.
        failed: whether it has failed as often as ``failureThreshold`` allows.
    """

    def __init__(
        self,
        spec: dict,
        check: Callable[[float], tuple[bool | None, str]],
        changed: Callable[[bool, str], None],
        *,
        begin: float,
        ok: bool,
    ) -> None:
        """Start it.

        Args:
            spec: what the pod says of it.
            check: carries it out within so many seconds.
            changed: called with what came out when something has changed or failed.
            begin: when the container was started, in seconds since the epoch.
            ok: what it says before its first result.
        """
        super().__init__(daemon=True)
        self.spec, self.ok, self.failed = spec, ok, False
        self._check, self._changed, self._begin = check, changed, begin
        self._stopped = threading.Event()
        self.start()

    def stop(self) -> None:
        """Let it end."""
        self._stopped.set()

    def run(self) -> None:
        """Probe at once (or after the initial delay), then once a period."""
        wait = self._begin + self.spec.get("initialDelaySeconds", 0) - time.time()
        streak, last = 0, None
        while not self._stopped.wait(max(0, wait)):
            begin = time.monotonic()
            good, said = self._check(self.spec.get("timeoutSeconds", 1))
            if self._stopped.is_set():
                return
            wait = self.spec.get("periodSeconds", 10) - (time.monotonic() - begin)
            if good is None:
                continue
            streak, last = (streak + 1 if good == last else 1), good
            before = self.ok, self.failed
            if good and streak >= self.spec.get("successThreshold", 1):
                self.ok, self.failed = True, False
            elif not good and streak >= self.spec.get("failureThreshold", 3):
                self.ok, self.failed = False, True
            if not good or before != (self.ok, self.failed):
                self._changed(good, said)
