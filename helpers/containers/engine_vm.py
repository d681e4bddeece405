"""The virtual machine that holds a Docker Engine where the machine has none.

It is built once from Debian packages, started, given its base images, and saved as it runs;
afterwards it is restored in less than a second.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers import ledger, machine, vm
from helpers.containers import certificates, images
from helpers.vm import initramfs, kernel, packages

GUEST = Path(__file__).parent / "guest"
MEMORY_MB = 512
# What the Engine needs in its machine; the rest of what apt would install stays out.
PACKAGES = (
    "docker.io containerd runc iptables libc6 libsystemd0 libdevmapper1.02.1 libseccomp2 "
    "libxtables12 libip4tc2 libip6tc2 libnftnl11 libnetfilter-conntrack3 libnfnetlink0 libmnl0 "
    "libudev1 libselinux1 libpcre2-8-0 libcap2 libgcrypt20 libgpg-error0 liblzma5 liblz4-1 "
    "libzstd1 libgcc-s1 libbtrfs0 base-files netbase tini"
).split()
UNNEEDED = (
    "usr/share usr/bin/ctr usr/bin/dnet usr/sbin/ovrouter usr/sbin/dnet usr/bin/containerd-stress "
    "usr/bin/containerd-shim usr/bin/containerd-shim-runc-v1 usr/bin/docker usr/libexec/docker "
    "usr/sbin/docker-proxy usr/bin/docker-proxy"
).split()


class EngineError(RuntimeError):
    """No Docker Engine can be had; the message says why and what to do."""


def start() -> tuple[dict[str, str], str]:
    """Make sure that the Engine in our machine answers; it is restored if it is not there.

    Returns:
        The variables that lead to it, and its version.

    Raises:
        EngineError: it cannot be had; the message says why and what to do.
    """
    with open(ledger.home() / "engine.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for found in vm.running():
            if found.name == "docker":
                environment = _environment(found)
                if version := _version(environment):
                    return environment, version
                found.stop()
        try:
            found = snapshot().restore("docker", ports=[2376], guest_command=_forwarder())
        except (vm.VMError, packages.PackageError) as problem:
            raise EngineError(f"There is no Docker here, and none in a VM: {problem}") from None
        environment = _environment(found)
        with ThreadPoolExecutor() as pool:  # its clock stands where it was saved
            clock = pool.submit(found.run, f"date -s @{time.time():.0f}", check=True)
            version = _version(environment)
            clock.result()
        return environment, version


def running() -> dict[str, str] | None:
    """Return the variables that lead to the Engine in our machine, if the machine runs."""
    for found in vm.running():
        if found.name == "docker":
            return _environment(found)
    return None


def _version(environment: dict[str, str]) -> str:
    return machine.docker_version(environment["DOCKER_HOST"], environment, seconds=20)


def _environment(found: vm.VM, tls: Path | None = None) -> dict[str, str]:
    tls = tls or _folder() / "tls"
    environment = {
        "DOCKER_HOST": f"tcp://127.0.0.1:{found.settings.ports[2376]}",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(tls / "client"),
    }
    # Where these are set (behind a company's proxy), the SDK's HTTP library prefers them to the
    # authority it is given (github.com/psf/requests/issues/3829): give it both.
    both = ledger.home() / "authorities.pem"
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        theirs = os.environ.get(variable, "")
        if theirs != str(both) and Path(theirs).is_file():
            both.write_text(Path(theirs).read_text() + (tls / "client/ca.pem").read_text())
        if Path(theirs).is_file():
            environment[variable] = str(both)
    return environment


def _forwarder() -> str:
    return f"{shlex.quote(sys.executable)} -m helpers.containers.forward"


def _folder() -> Path:
    """Return the cache's folder for this accelerator and version of QEMU: a saved state fits one.

    The recipe counts too, so that a changed one makes a new machine.
    """
    said = subprocess.run([str(machine.qemu()), "--version"], capture_output=True, text=True).stdout
    recipe = [Path(__file__), *GUEST.iterdir(), *initramfs.GUEST.iterdir()]
    recipe.append(Path(vm.__file__).with_name("settings.py"))
    parts = [said, vm.accelerator(), images.recipe()]
    parts += [path.read_text() for path in sorted(recipe)]
    return machine.cache() / "engine" / hashlib.sha256("".join(parts).encode()).hexdigest()[:10]


def snapshot() -> vm.Snapshot:
    """Return the saved machine with an Engine that runs in it, made on first use.

    It holds the stand-ins of the base images. Making it takes about two minutes under
    emulation; restoring it takes less than a second.
    """
    vm.accelerator()  # says so if QEMU is missing
    path = _folder()
    if not path.exists():  # each part with its own line of progress
        provide_command()
        kernel.default()
        for name in images.SMALL:
            images.archive(name)
    folder = machine.cached(
        f"engine/{path.name}",
        _make,
        what="Building a virtual machine with a Docker Engine",
        seconds=130,
        replaces="[!.]*",
    )
    return vm.Snapshot(folder / "snapshot")


def _make(draft: Path) -> None:
    certificates.make(draft / "tls")
    with tempfile.TemporaryDirectory(dir=draft) as scratch:
        root = Path(scratch) / "root"
        _fetch(root)
        _write_disk(root, draft / "tls/server", Path(scratch) / "disk.raw")
        raw = Path(scratch) / "disk.raw"
        base = Path(scratch) / "disk.qcow2"
        vm.qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, base)
        raw.unlink()
        archive = initramfs.base(kernel.default(), [*kernel.DEVICES, *kernel.ENGINE])
        archive.file("pivot", b"")
        (draft / "initrd").write_bytes(archive.bytes())
        with _boot(draft, base) as built:
            _bake(built, draft, _load_bases)
            built.snapshot(folder=draft / "snapshot")


def extend(recipe: str, load: Callable[[], None]) -> None:
    """Add images to the saved machine, so that they are in its Engine from the start.

    Args:
        recipe: tells what is added; when it changes, the machine is made anew.
        load: loads them into the Engine that the environment names.

    Raises:
        EngineError: its Engine does not start.
    """
    told = _folder() / "added"
    if told.exists() and told.read_text() == recipe:
        return
    if told.exists():
        shutil.rmtree(_folder())
    saved, folder = snapshot().folder, _folder()
    print("Adding the course's images to that machine (once, about 400 s) … ", end="", flush=True)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # It is booted, not restored: the memory of a restored one would be saved page by page.
        with _boot(folder, saved / "disk.qcow2") as built:
            _bake(built, folder, load)
            built.snapshot(folder=Path(scratch) / "new")
        saved.rename(Path(scratch) / "old")
        (Path(scratch) / "new").rename(saved)
    told.write_text(recipe)
    print(f"done in {time.monotonic() - begin:.1f} s", flush=True)


def _boot(folder: Path, disk: Path) -> vm.VM:
    return vm.boot(
        folder / "initrd",
        memory=MEMORY_MB,
        cpus=min(2, machine.cores()),
        ports=(2376,),
        disk=disk,
        outbound=True,
        guest_command=_forwarder(),
    )


def provide_command() -> None:
    """See to it that this process has a ``docker`` command; one is fetched where there is none."""
    if not shutil.which("docker"):
        # Newer releases have the command in a package of its own.
        command = packages.program("docker", "docker.io", "docker-cli")
        os.environ["PATH"] += f":{command.parent}"


def _fetch(root: Path) -> None:
    """Unpack the Engine and what it needs below a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        found = packages.fetch(["docker.io", "iptables"], Path(scratch) / "debs", needed=True)
        wanted = [p for p in found if p.name.split("_")[0].removesuffix("t64") in PACKAGES]
        packages.unpack(wanted, root)


def _write_disk(root: Path, certificates_: Path, disk: Path) -> None:
    for name in UNNEEDED:
        subprocess.run(["rm", "-rf", root / name], check=True)
    for name in [*"proc sys dev run tmp root mnt".split(), "var/log", "usr/local/bin"]:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "var/run").symlink_to("../run")
    program = initramfs.busybox()
    shutil.copy2(program, root / "usr/bin/busybox")
    there = {path.name for path in root.glob("usr/*bin/*")}
    applets = subprocess.run([program, "--list"], capture_output=True, text=True).stdout.split()
    for applet in sorted({*applets} - there):
        (root / "usr/bin" / applet).symlink_to("busybox")
    for name in ("iptables", "ip6tables"):
        (root / "usr/sbin" / name).unlink(missing_ok=True)
        (root / "usr/sbin" / name).symlink_to("xtables-legacy-multi")
    shutil.copytree(certificates_, root / "etc/docker", dirs_exist_ok=True)
    shutil.copy2(GUEST / "init-system", root / "init-system")
    shutil.copy2(GUEST / "publish", root / "usr/local/bin/publish")
    for name in ("init-system", "usr/local/bin/publish"):
        (root / name).chmod(0o755)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\ndocker:x:999:\n")
    # The Engine looks up "localhost" whenever it unpacks something: without an answer here it
    # would wait for a name server, which a machine without a network does not have.
    (root / "etc/hosts").write_text("127.0.0.1 localhost docker\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    with open(disk, "wb") as file:
        file.truncate(8 << 30)
    mke2fs = shutil.which("mke2fs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    subprocess.run(
        [mke2fs, "-q", "-t", "ext4", "-m", "0", "-E", "root_owner=0:0", "-d", root, disk],
        check=True,
        capture_output=True,
    )


def _load_bases() -> None:
    for name in images.SMALL:
        images.load_stand_in(name, label=images.BASE)


def _bake(built: vm.VM, folder: Path, load: Callable[[], None]) -> None:
    """Wait for the Engine, load images, and make the machine small before it is saved."""
    environment = _environment(built, folder / "tls")
    deadline = time.monotonic() + 120
    while not machine.docker_version(environment["DOCKER_HOST"], environment):
        if time.monotonic() > deadline:
            log = built.run("tail -3 /var/log/dockerd.log").stdout
            raise EngineError(f"The Docker Engine in the virtual machine does not start: {log}")
        time.sleep(0.2)
    before = dict(os.environ)
    os.environ.update(environment)
    os.environ.pop("LAB_LABEL", None)
    try:
        load()
    finally:
        os.environ.clear()
        os.environ.update(before)
    # Free memory that is not zero would be saved too: fill it with zeros once.
    built.run(
        "sync; echo 3 > /proc/sys/vm/drop_caches; mount -t tmpfs -o size=90% zero /mnt;"
        "free=$(free -m | awk '/Mem/ {print $4 - 24}');"
        "dd if=/dev/zero of=/mnt/zero bs=1M count=$free; umount /mnt; fstrim / || true; sync",
        timeout=120,
    )
