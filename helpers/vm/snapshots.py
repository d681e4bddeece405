"""Save a virtual machine as it runs, and start others that go on from there."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from helpers import ledger, machine
from helpers.vm import disks, launch
from helpers.vm.guest import VM, discard
from helpers.vm.settings import Settings, VMError


def save(vm: VM, name: str | None, folder: Path | None) -> Snapshot:
    """Save a running machine in a folder; see ``VM.snapshot``."""
    if vm.settings.report_free_pages:
        raise VMError("A machine that gives memory back cannot be saved; boot it without.")
    if folder is None:
        folder = ledger.home() / "snapshots" / (name or f"{vm.name}-{uuid.uuid4().hex[:4]}")
        ledger.record("files", f"snapshot {folder.name}", path=str(folder))
    folder.mkdir(parents=True)
    with vm.monitor() as monitor:
        monitor("stop")
        try:
            monitor("migrate-set-capabilities", capabilities=launch.SHARED_MEMORY)
            monitor("migrate", uri=f"exec:cat > '{folder / 'state'}'")
            while (answer := monitor("query-migrate"))["status"] not in ("completed", "failed"):
                time.sleep(0.002)
            if answer["status"] == "failed":
                raise VMError(f"The machine could not be saved: {answer.get('error-desc')}.")
            disks.copy_sparse(_memory_file(vm), folder / "ram")
            if vm.settings.disk:
                disks.save(vm.folder / vm.settings.disk, folder / vm.settings.disk)
        finally:
            monitor("cont")
    shutil.copyfile(vm.settings.initrd, folder / "initrd")
    text = json.dumps(asdict(vm.settings))  # the cache may be moved or copied
    text = text.replace(json.dumps(str(machine.cache()))[1:-1], "$LAB_CACHE")
    (folder / "settings.json").write_text(text)
    return Snapshot(folder)


def _memory_file(vm: VM) -> Path:
    for path in Path(f"/proc/{vm.pid}/fd").iterdir():
        if "memfd:ram" in os.readlink(path):
            return path
    return Path(vm.settings.ram)


class Snapshot:
    """A saved machine: state, memory and disk in one folder. It can be restored many times."""

    def __init__(self, folder: Path) -> None:
        """Take up the snapshot in a folder."""
        self.folder = folder

    @property
    def size_mb(self) -> int:
        """What it takes on the disk."""
        return sum(path.stat().st_blocks for path in self.folder.iterdir()) * 512 >> 20

    def restore(
        self,
        name: str | None = None,
        *,
        ports: Iterable[int] | None = None,
        guest_command: str = "",
    ) -> VM:
        """Start a machine that goes on where the saved one was.

        Its memory is read from the snapshot as it is needed, and shared with other machines
        restored from it until one of them writes (copy on write).

        Args:
            name: the new machine's name (its host name stays the saved one's).
            ports: guest ports to publish; those of the saved machine if left out.
            guest_command: as for ``boot``.

        Raises:
            VMError: it does not start.
        """
        text = (self.folder / "settings.json").read_text()
        cache = json.dumps(str(machine.cache()))[1:-1]
        settings = Settings(**json.loads(text.replace("$LAB_CACHE", cache)))
        settings.name = name or launch.free_name()
        guests = [int(port) for port in settings.ports] if ports is None else ports
        settings.ports = dict.fromkeys(guests, 0)
        settings.ram = str(self.folder / "ram")
        settings.initrd = str(self.folder / "initrd")
        settings.guest_command = guest_command
        settings.address = Settings.address
        return launch.start(settings, restore_from=self.folder)

    def delete(self) -> None:
        """Remove it from the disk."""
        discard(self.folder)
