"""QEMU's control socket (QMP), spoken as much as is needed here."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path


class QemuError(RuntimeError):
    """QEMU refused a command; the message is its own."""


def connect(path: Path, seconds: float) -> socket.socket:
    """Connect to a UNIX socket that may be about to appear.

    The path may be longer than the 108 bytes that the system allows for socket names.

    Raises:
        OSError: nobody listens there within that time.
    """
    folder = None
    deadline = time.monotonic() + seconds
    while True:
        link = socket.socket(socket.AF_UNIX)
        try:
            folder = os.open(path.parent, os.O_RDONLY)
            short = Path(f"/proc/self/fd/{folder}") / path.name
            link.connect(str(short if short.parent.exists() else path))
            return link
        except OSError:
            link.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)
        finally:
            if folder is not None:
                os.close(folder)
                folder = None


class Monitor:
    """A connection to QEMU's control socket; one at a time, so keep it short."""

    def __init__(self, path: Path, seconds: float = 10.0) -> None:
        """Connect to the socket at ``path``."""
        self._socket = connect(path, seconds)
        self._file = self._socket.makefile("rwb")
        self._file.readline()  # the greeting
        self("qmp_capabilities")

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
        self._socket.close()

    def __call__(self, command: str, **arguments):
        """Run a command and return its answer.

        Raises:
            QemuError: QEMU refused it, or ended.
        """
        names = {name.replace("_", "-"): value for name, value in arguments.items()}
        request = {"execute": command, "arguments": names}
        try:
            self._file.write(json.dumps(request).encode() + b"\n")
            self._file.flush()
            while line := self._file.readline():
                answer = json.loads(line)
                if "error" in answer:
                    raise QemuError(answer["error"]["desc"])
                if "return" in answer:
                    return answer["return"]
        except OSError as problem:
            raise QemuError(str(problem)) from None
        raise QemuError("QEMU has ended.")

    def human(self, line: str) -> str:
        """Run a command of QEMU's human monitor, which has some that QMP has not."""
        return self("human-monitor-command", command_line=line)
