"""Compare what the course starts with the bare tools, in turns: what do the helpers cost?

Virtual machine: ``vm.boot`` and the command ``qemu-system-x86_64`` alone, with the same kernel and
first file system, to the first program in userspace and to a web server's reply. Container from
scratch: ``namespaces.run`` and ``container.c``, which makes the same system calls. Docker: ``docker
run`` as a lesson has it, and without the course's variables. Then the restored machine and Engine.

    python tests/benchmarks/starts.py [REPEATS]

Needs root, this machine's Docker Engine, a C compiler, and a machine that does nothing else.
"""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import pandas as pd

from helpers import containers, ledger, vm
from helpers.bench import places
from helpers.containers import scratch

SERVER = "mkdir -p /www; echo hello > /www/index.html; httpd -p 80 -h /www"
HERE = Path(__file__).parent
DOCKER_RUN = "docker run --rm debian:stable-slim true"


def userspace(console: Path) -> None:
    """Wait until the guest's first program has said so on the console."""
    while not console.exists() or b"userspace after" not in console.read_bytes():
        time.sleep(0.001)


def reply(port: int) -> None:
    """Wait until a web server answers."""
    while True:
        address = f"http://127.0.0.1:{port}/"
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=1):
            return
        time.sleep(0.001)


def by_helpers(folder: Path) -> dict[str, float]:
    """Boot a machine by the helpers."""
    begin = time.perf_counter()
    guests = []
    boot = threading.Thread(target=lambda: guests.append(vm.boot(command=SERVER, name="timed")))
    boot.start()
    userspace(ledger.home() / "vm/timed/console.log")
    first = time.perf_counter() - begin
    boot.join()
    with guests[0] as guest:
        reply(guest.settings.ports[80])
        seconds = time.perf_counter() - begin
        shutil.copyfile(guest.settings.initrd, folder / "initrd")
        shutil.copyfile(guest.settings.kernel, folder / "vmlinux")
    return {"vm userspace": first, "vm reply": seconds}


def by_qemu(folder: Path) -> dict[str, float]:
    """Boot the same machine by QEMU alone."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    accelerator = vm.accelerator().replace("tcg", "tcg,tb-size=256")
    line = (
        f"qemu-system-x86_64 -M q35 -accel {accelerator} -m 128 -nodefaults -display none "
        "-no-reboot -kernel vmlinux -initrd initrd -append 'console=ttyS0 quiet panic=-1' "
        f"-serial file:console -netdev user,id=n,hostfwd=tcp:127.0.0.1:{port}-:80 "
        "-device virtio-net-pci,romfile=,netdev=n"
    )
    console = folder / "console"
    console.unlink(missing_ok=True)
    begin = time.perf_counter()
    with subprocess.Popen(shlex.split(line), cwd=folder) as process:
        userspace(console)
        first = time.perf_counter() - begin
        reply(port)
        seconds = time.perf_counter() - begin
        process.kill()
    return {"vm userspace": first, "vm reply": seconds}


def timed(what: str, work) -> dict[str, float]:
    """Time one call."""
    begin = time.perf_counter()
    work()
    return {what: time.perf_counter() - begin}


def shell(line: str, **options) -> None:
    subprocess.run(line, shell=True, check=True, stdout=subprocess.DEVNULL, **options)


def engine_in_a_vm() -> dict[str, float]:
    """Restore the Engine in a machine and use it from a process of its own, as a lesson does."""
    home = ledger.home() / "inner"
    program = (
        "import subprocess, time; begin = time.perf_counter()\n"
        "from helpers import containers, ledger; containers.engine()\n"
        "subprocess.run(['docker', 'version'], check=True, stdout=subprocess.DEVNULL)\n"
        "print(time.perf_counter() - begin)\n"
        "for n in range(2):\n"
        "    begin = time.perf_counter()\n"
        f"    subprocess.run({DOCKER_RUN.split()}, check=True)\n"
        "    print(time.perf_counter() - begin)\n"
        "assert not ledger.down()"
    )
    settings = {**os.environ, "LAB_ENGINE": "vm", "LAB_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=settings
    )
    seconds = [float(word) for word in done.stdout.split()[-3:]]
    rows = ("engine in a VM: docker version", "engine in a VM: run 1", "engine in a VM: run 2")
    return dict(zip(rows, seconds, strict=True))


def main(repeats: int) -> None:
    """Measure in turns and show the medians."""
    containers.engine()
    containers.image("debian:stable-slim")
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "LAB_"))}
    root, rows = scratch.place().root, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = str(folder / "container")
        subprocess.run(["cc", "-O2", "-o", program, HERE / "container.c"], check=True)
        alone = [program, root, "/bench", "true"]
        Path(root, "proc").mkdir(exist_ok=True)
        Path(root, "dev").mkdir(exist_ok=True)
        snapshot = places.snapshot()

        def restored():
            with snapshot.restore() as guest:
                reply(guest.settings.ports[80])

        for _ in range(repeats):
            rows += [
                {"by": "helpers"} | by_helpers(folder),
                {"by": "alone"} | by_qemu(folder),
                {"by": "helpers"} | timed("docker run", lambda: shell(DOCKER_RUN)),
                {"by": "alone"} | timed("docker run", lambda: shell(DOCKER_RUN, env=plain)),
                {"by": "helpers"} | timed("vm restored: reply and stop", restored),
                {"by": "helpers"} | engine_in_a_vm(),
            ]
            for _ in range(5):
                run = {"namespaces": places.start("namespaces")}
                one = timed("namespaces", lambda: subprocess.run(alone, check=True))
                rows += [{"by": "helpers"} | run, {"by": "alone"} | one]
    table = pd.DataFrame(rows).groupby("by").median().T[["helpers", "alone"]]
    print(table.assign(ratio=table.helpers / table.alone).round(4).to_string())
    raise SystemExit(bool(ledger.down()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
