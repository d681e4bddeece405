"""A place where containers can be made from scratch: this machine, or a virtual machine of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from helpers import ledger, machine, vm
from helpers.vm import initramfs

SOURCE = Path(__file__).with_name("namespaces.py")


class Place:
    """A shell in which the kernel allows namespaces and control groups.

    Attributes:
        rung: ``namespaces`` (this machine's kernel) or ``namespaces in a VM``.
        root: path, in that place, of a small file tree with busybox, for a container's ``/``.
        script: path, in that place, of ``namespaces.py``.
        python: the Python there.
        machine: the virtual machine, or None.
    """

    def __init__(self, rung: str, folder: str, python: str, guest: vm.VM | None = None) -> None:
        """Describe a place that is ready."""
        self.rung, self.root, self.python, self.machine = rung, f"{folder}/root", python, guest
        self.script = f"{folder}/namespaces.py"

    def run(
        self, command: str, *, timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess:
        """Run a shell command there, with ``$ROOT``, ``$BOX`` and ``$PYTHON`` set; return its end.

        ``$BOX`` runs ``namespaces.py``: ``$BOX $ROOT sh -c 'hostname'``.

        Raises:
            RuntimeError: it failed, and ``check`` is set; the message is what it printed.
        """
        settings = {"ROOT": self.root, "PYTHON": self.python, "BOX": f"{self.python} {self.script}"}
        if self.machine:
            exports = "".join(f"export {k}='{v}'\n" for k, v in settings.items())
            done = self.machine.run(exports + command, timeout=timeout)
        else:
            process, entry = ledger.spawn(
                "a command in namespaces",
                ["sh", "-c", command],
                env={**os.environ, **settings},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                output, errors = process.communicate(timeout=timeout)
            finally:
                ledger.stop(entry)
            done = subprocess.CompletedProcess(command, process.returncode, output, errors)
        if check and done.returncode:
            raise RuntimeError(f"exit status {done.returncode}: {done.stderr or done.stdout}")
        return done


def place(*, limits: bool = True) -> Place:
    """Return a place for containers from scratch.

    It is this machine where the kernel allows it; otherwise a virtual machine with Python, in
    which one is root (named ``scratch``, shared by all that ask for it).

    Args:
        limits: whether control groups are needed too.
    """
    if machine.namespaces().works and (machine.limits().works or not limits):
        folder = ledger.home() / "scratch"
        if not (folder / "root/bin/busybox").exists():
            with ledger.for_all():
                ledger.record("files", "file tree for containers from scratch", path=str(folder))
            _make_root(folder / "root")
        shutil.copyfile(SOURCE, folder / "namespaces.py")
        return Place("namespaces", str(folder), sys.executable)
    found = next((one for one in vm.running() if one.name == "scratch"), None)
    if not found:
        found = vm.boot("python", memory=384, name="scratch", ports=())
        found.run("mkdir -p /scratch/root/bin && cp /bin/busybox /scratch/root/bin", check=True)
        found.run("chroot /scratch/root /bin/busybox --install -s /bin", check=True)
        found.copy_in(SOURCE, "/scratch/namespaces.py")
    ledger.use(found.entry)
    return Place("namespaces in a VM", "/scratch", "python3", found)


def release(needed_mb: int) -> None:
    """Stop the machine that ``place`` has started, if less memory than so many MB is free."""
    found = next((one for one in vm.running() if one.name == "scratch"), None)
    if found and (free := machine.facts()["memory_free_mb"]) < needed_mb:
        print(f"Virtual machine scratch is stopped: {free} MB of memory were free.")
        found.stop()


def _make_root(root: Path) -> None:
    (root / "bin").mkdir(parents=True)
    shutil.copy2(initramfs.busybox(), root / "bin/busybox")
    subprocess.run(
        [root / "bin/busybox", "--install", "-s", root / "bin"], check=True, capture_output=True
    )
    for link in (root / "bin").iterdir():
        if link.is_symlink():  # they point to the busybox outside
            link.unlink()
            link.symlink_to("busybox")
