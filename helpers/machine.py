"""What this machine can do, found out by trying, never by guessing.

Each probe is a function that tries the thing itself. Slow answers are remembered in the cache
until the next reboot.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import random
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

import psutil

from helpers import ledger

CGROUPS = Path("/sys/fs/cgroup")
# What is needed for Kubernetes with a node, and for an Engine in a virtual machine with some pods.
CLUSTER_MB, ENGINE_MB = 650, 650


def cache() -> Path:
    """Return the folder of downloads and built things, which survives ``down``.

    ``LAB_CACHE`` moves it; the default is ``server-deployment-course`` in the user's cache folder.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(os.environ.get("LAB_CACHE") or default / "server-deployment-course").absolute()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@dataclass(frozen=True)
class Part:
    """One line of the doctor's table.

    Attributes:
        part: what it is about ("virtual machines").
        rung: what is in use ("tcg"), or "none".
        real: what is real about it.
        why: why not the next better rung; empty on the best one.
        command: the one command that would lift it, or empty.
    """

    part: str
    rung: str
    real: str
    why: str = ""
    command: str = ""


@dataclass(frozen=True)
class Probe:
    """The answer of one probe: whether it works, and if not, why and what would mend it."""

    works: bool
    why: str = ""
    command: str = ""


def cached(
    name: str,
    make: Callable[[Path], None],
    *,
    what: str,
    seconds: int = 0,
    replaces: str = "",
) -> Path:
    """Return a file or folder of the cache, made once.

    Args:
        name: its place in the cache.
        make: writes it to the path it is given; if it fails, nothing stays behind.
        what: what is being made, for the line shown while the reader waits.
        seconds: about how long that takes.
        replaces: pattern of the names beside it that older recipes gave it. They are removed
            after a week in which no course that shares the cache has used them.

    Raises:
        OSError: there is no space left; the message says where, and how to move the cache.
    """
    path = cache() / name
    if path.exists():
        with contextlib.suppress(OSError):  # the cache may be somebody else's
            os.utime(path)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / f".{path.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two notebooks may want it at once
        if path.exists():
            return path
        draft = path.parent / f".{path.name}.draft"
        _remove(draft)  # of one that was killed
        print(f"{what} (once, about {seconds} s) … ", end="", flush=True)
        begin = time.perf_counter()
        try:
            make(draft)
            draft.rename(path)
        except OSError as problem:
            if problem.errno == errno.ENOSPC:
                raise OSError(errno.ENOSPC, _full_disk(what)) from None
            raise
        finally:
            _remove(draft)
        print(f"done in {time.perf_counter() - begin:.1f} s", flush=True)
    for old in path.parent.glob(replaces) if replaces else ():
        if old != path and old.stat().st_mtime < time.time() - 7 * 86400:
            _remove(old)
    return path


def facts() -> dict:
    """Return what the machine is: system, kernel, processor, cores, memory and disk in MB.

    In a container that has a limit of memory, that limit counts, and what its processes hold.
    """
    memory = psutil.virtual_memory()
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": cores(),
        "memory_mb": min(memory.total, _memory_limit()) // 2**20,
        "memory_free_mb": min(memory.available, _memory_limit() - _memory_held()) // 2**20,
        "disk_free_mb": shutil.disk_usage(cache()).free // 2**20,
    }


def cores() -> int:
    """Return how many processors this process may use, a container's quota included.

    ``LAB_CORES`` says it for a machine that will have fewer than this one.
    """
    if told := os.environ.get("LAB_CORES"):
        return int(told)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for quota, period in (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = (CGROUPS / quota).read_text().split()
            share = int(words[0]) / int(words[1] if not period else (CGROUPS / period).read_text())
        except (OSError, ValueError, IndexError):
            continue
        if share > 0:
            usable = min(usable, max(1, round(share)))
    return usable


def loopback_address() -> str:
    """Return a loopback address of its own; where there is but one, 127.0.0.1.

    All of 127.0.0.0/8 is loopback on Linux, so that whoever gets one has every port to itself.
    """
    parts = [random.SystemRandom().randrange(1, 255) for _ in range(3)]
    address = "127." + ".".join(map(str, parts))
    with socket.socket() as trial:
        try:
            trial.bind((address, 0))
            return address
        except OSError:
            return "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@once
def qemu() -> Path | None:
    """Return the QEMU program for this course's machines (x86-64), or None."""
    found = shutil.which("qemu-system-x86_64")
    return Path(found) if found else None


@once
def kvm() -> Probe:
    """Prove the hardware's help for virtual machines by starting one with a time-out.

    ``/dev/kvm`` may be there and not work, or work and be slower than emulation (a virtual
    machine without nested virtualization), so a boot sector is really run, with a second to
    answer; emulation needs a tenth of that. The answer is remembered until the next boot.
    """
    if not Path("/dev/kvm").exists():
        if "hypervisor" in _cpu_flags():
            reason = "this machine is itself virtual and its host offers no nested virtualization"
        else:
            reason = "there is no /dev/kvm: virtualization is off in the firmware, or no KVM module"
        return Probe(False, reason)
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Probe(False, "you may not open /dev/kvm", "sudo usermod -aG kvm $USER")
    if not qemu():
        return Probe(False, "QEMU is not installed", QEMU_COMMAND)
    return Probe(**_remembered("kvm", lambda: vars(_run_boot_sector("kvm", seconds=1.0))))


def docker_socket() -> str | None:
    """Return the address of this machine's own Docker Engine if it answers, else None.

    Only local sockets are tried: the learner's contexts and ``DOCKER_HOST`` are left alone,
    unless ``LAB_DOCKER_HOST`` names an Engine.
    """
    run = os.environ.get("XDG_RUNTIME_DIR", "")
    for address in filter(
        None,
        (
            os.environ.get("LAB_DOCKER_HOST"),
            "unix:///var/run/docker.sock",
            run and f"unix://{run}/docker.sock",
            f"unix://{Path.home()}/.docker/run/docker.sock",
        ),
    ):
        if docker_version(address):
            return address
    return None


def docker_version(address: str, environment: dict | None = None, seconds: float = 2) -> str:
    """Return the version of the Docker Engine at an address, or an empty text if none answers.

    Args:
        address: ``unix://…`` or ``tcp://…``.
        environment: further variables, such as those for TLS.
        seconds: to wait for each part of its answer.
    """
    scheme, _, rest = address.partition("://")
    try:
        if scheme == "unix":
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(seconds)
            link.connect(rest)
        else:
            host, port = rest.rsplit(":", 1)
            link = socket.create_connection((host, int(port)), timeout=seconds)
            if folder := (environment or {}).get("DOCKER_CERT_PATH"):
                tls = ssl.create_default_context(cafile=f"{folder}/ca.pem")
                tls.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
                link = tls.wrap_socket(link, server_hostname=host)
        with link, link.makefile("rwb") as stream:
            stream.write(b"GET /version HTTP/1.0\r\nHost: docker\r\n\r\n")
            stream.flush()
            return json.loads(stream.read().partition(b"\r\n\r\n")[2])["Version"]
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def docker_engine() -> Probe:
    """Say whether the machine has a Docker Engine that answers, and if not, what is missing."""
    if docker_socket():
        return Probe(True)
    if not shutil.which("dockerd"):
        beside = " (Podman is, and cannot stand in for it here)" if podman().works else ""
        return Probe(False, f"no Docker Engine is installed{beside}", DOCKER_COMMAND)
    socket = Path("/var/run/docker.sock")
    if socket.exists() and not os.access(socket, os.W_OK):
        return Probe(False, "you may not use Docker's socket", "sudo usermod -aG docker $USER")
    return Probe(False, "the Docker Engine does not run", "sudo systemctl start docker")


@once
def podman() -> Probe:
    """Say whether Podman works here. The lessons do not use it: they teach Docker's own Engine."""
    try:
        trial = subprocess.run(["podman", "info"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return Probe(False, f"podman does not run: {problem}")
    if trial.returncode:
        return Probe(False, (trial.stderr.strip().splitlines() or ["podman fails"])[-1])
    return Probe(True)


@once
def namespaces() -> Probe:
    """Say whether a process of ours may get its own namespaces (the stuff of containers)."""
    if sys.platform != "linux":
        return Probe(False, "namespaces are a feature of Linux")
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    try:
        trial = subprocess.run(
            ["unshare", *user, "--mount", "--pid", "--net", "--uts", "--fork", "true"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return Probe(False, f"unshare does not run: {problem}")
    if trial.returncode:
        return Probe(False, f"the kernel refuses namespaces ({trial.stderr.strip()})")
    return Probe(True)


def cgroup_version() -> int:
    """Return 2 where the kernel's unified control groups are mounted, 1 for the old, else 0."""
    if (CGROUPS / "cgroup.controllers").exists():
        return 2
    return 1 if (CGROUPS / "memory").is_dir() else 0


@once
def limits() -> Probe:
    """Say whether we may set limits: a control group is really made and removed."""
    version = cgroup_version()
    if not version:
        return Probe(False, "no control groups are mounted")
    parent = CGROUPS / "memory" if version == 1 else CGROUPS
    group = parent / f"lab-probe-{os.getpid()}"
    knob = group / ("memory.limit_in_bytes" if version == 1 else "memory.max")
    try:
        group.mkdir()
        try:
            knob.write_text(str(64 << 20))
        finally:
            group.rmdir()
    except OSError as problem:
        return Probe(False, f"control groups may not be changed ({problem.strerror})")
    return Probe(True)


def registry(settings: dict) -> Probe:
    """Say whether an Engine can reach its image registry: it is asked to (5 s at most).

    Args:
        settings: the variables that lead to the Engine (``DOCKER_HOST`` and so on).

    The answer is remembered for a day. ``LAB_OFFLINE=1`` answers no without a packet.
    """
    if os.environ.get("LAB_OFFLINE"):
        return Probe(False, "LAB_OFFLINE is set")
    kind = "registry-" + settings["DOCKER_HOST"].split(":")[0]
    return Probe(**_remembered(kind, lambda: vars(_ask_registry(settings))))


def kind() -> Probe:
    """Say whether kind can make a Kubernetes cluster here: it, its image or a way to that."""
    if os.environ.get("LAB_CLUSTER") == "ours":
        return Probe(False, "LAB_CLUSTER=ours is set")
    if not shutil.which("kind"):
        return Probe(False, "kind is not installed", "https://kind.sigs.k8s.io says how")
    if not (address := docker_socket()):
        return Probe(False, "kind needs a Docker Engine of this machine")
    there = ["docker", "--host", address, "images", "-q", "kindest/node"]
    if subprocess.run(there, capture_output=True).stdout:
        return Probe(True)
    return registry({"DOCKER_HOST": address})


def pods() -> tuple[str, str]:
    """Return what the pods of a cluster of ours are, and why they are nothing better.

    That is ``docker``, ``docker in a VM`` or ``process`` (``LAB_PODS`` forces one). Processes are
    the last resort, where there is no Engine and too little memory for a virtual machine with one.
    """
    if forced := os.environ.get("LAB_PODS"):
        return forced, f"LAB_PODS={forced} is set"
    part = _container_part()
    if part.rung == "docker in a VM":
        free = facts()["memory_free_mb"]
        engines = [e for e in ledger.entries("process") if e.name == "virtual machine docker"]
        needed = CLUSTER_MB + (0 if any(e.alive() for e in engines) else ENGINE_MB)
        if free < needed:
            why = f"a Docker Engine in a VM beside it would need {needed} MB"
            return "process", f"{free} MB of memory are free, and {why}"
    return ("process", part.why) if part.rung == "none" else (part.rung, part.why)


def survey() -> list[Part]:
    """Return the doctor's table: what is real here, rung by rung."""
    parts = (_vm_part, _container_part, _namespace_part, _image_part, _aws_part, _kubernetes_part)
    return [part() for part in parts]


QEMU_COMMAND = (
    "brew install qemu"
    if sys.platform == "darwin"
    else "sudo apt-get install --no-install-recommends qemu-system-x86"
)
DOCKER_COMMAND = (
    "install Docker Desktop"
    if sys.platform == "darwin"
    else "sudo apt-get install docker.io && sudo usermod -aG docker $USER"
)


def _vm_part() -> Part:
    part = "virtual machines"
    if not qemu():
        return Part(part, "none", "nothing: read the saved outputs", "no QEMU", QEMU_COMMAND)
    forced = os.environ.get("LAB_ACCEL")
    probe = kvm()
    if forced:
        return Part(part, forced, "own kernel, memory and processor", "LAB_ACCEL is set")
    if probe.works:
        return Part(part, "kvm", "own kernel and memory, processor at full speed")
    if sys.platform == "darwin":
        return Part(part, "tcg", "own kernel and memory, processor emulated", probe.why)
    return Part(part, "tcg", "own kernel and memory, processor emulated", probe.why, probe.command)


def _container_part() -> Part:
    part, forced = "containers", os.environ.get("LAB_ENGINE")
    probe = Probe(False, "LAB_ENGINE=vm is set") if forced == "vm" else docker_engine()
    if probe.works:
        return Part(part, "docker", "this machine's Docker Engine")
    if qemu():
        real = "a real Docker Engine, in a virtual machine of ours"
        return Part(part, "docker in a VM", real, probe.why, probe.command)
    return Part(part, "none", "nothing: read the saved outputs", probe.why, probe.command)


def _namespace_part() -> Part:
    part, allowed, limit = "container from scratch", namespaces(), limits()
    if allowed.works and limit.works:
        real = f"namespaces and control groups (version {cgroup_version()}) of this kernel"
        return Part(part, "namespaces", real)
    if allowed.works:
        real = "namespaces of this kernel; limits are shown in a virtual machine"
        return Part(part, "namespaces", real, limit.why, "run as root")
    return Part(part, "namespaces in a VM", "the same, in a virtual machine", allowed.why)


def _image_part() -> Part:
    real = "images of the same name, built here from Debian packages"
    address = docker_socket()
    if not address or os.environ.get("LAB_ENGINE") == "vm":
        return Part("images", "stand-in", real, "they are baked into the virtual machine")
    probe = registry({"DOCKER_HOST": address})
    if probe.works:
        return Part("images", "registry", "the published images")
    return Part("images", "stand-in", real, probe.why)


def _aws_part() -> Part:
    if os.environ.get("LAB_AWS") == "real":
        return Part("AWS", "real account", "Amazon's own, which costs money")
    instances = "instances are virtual machines" if qemu() else "no instances without QEMU"
    real = f"a server on this machine; {instances}"
    why = "a real account costs money and has to be named in full"
    command = "export LAB_AWS=real LAB_AWS_PROFILE=NAME LAB_AWS_ACCOUNT=NUMBER"
    return Part("AWS", "local cloud", real, why, command)


def _kubernetes_part() -> Part:
    part = "Kubernetes"
    if context := os.environ.get("LAB_KUBE_CONTEXT"):
        return Part(part, "existing context", f"your cluster of the context {context}")
    best = kind()
    if best.works:
        return Part(part, "kind", "Kubernetes whose nodes are containers")
    if platform.system() != "Linux":
        return Part(part, "none", "nothing: read the saved outputs", best.why, best.command)
    rung, why = pods()
    kinds = {
        "docker": "containers of this machine's Engine",
        "docker in a VM": "containers in our virtual machine",
        "process": "plain processes, not isolated",
    }
    real = f"a real control plane, nodes of ours; pods are {kinds[rung]}"
    return Part(part, rung, real, best.why if rung == "docker" else why, best.command)


def _run_boot_sector(accelerator: str, seconds: float) -> Probe:
    """Run five bytes of machine code that end QEMU with status 33 (isa-debug-exit)."""
    code = bytes([0xB0, 0x10, 0xE6, 0xF4, 0xF4])  # mov al, 0x10; out 0xf4, al; hlt
    with tempfile.NamedTemporaryFile(suffix=".img") as disk:
        disk.write(code.ljust(510, b"\0") + b"\x55\xaa" + bytes(2**20 - 512))
        disk.flush()
        command = f"{qemu()} -M q35 -m 64 -accel {accelerator} -display none -no-reboot".split()
        command += ["-nodefaults", "-no-user-config"]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        command += ["-drive", f"file={disk.name},format=raw,if=none,id=d,readonly=on"]
        command += ["-device", "virtio-blk-pci,drive=d,bootindex=1"]
        try:
            trial = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return Probe(False, f"a guest under {accelerator} does not start within {seconds:g} s")
    if trial.returncode != 33:
        why = (trial.stderr.strip().splitlines() or ["QEMU ended early"])[-1]
        return Probe(False, f"a guest under {accelerator} does not start ({why})")
    return Probe(True)


def _ask_registry(settings: dict) -> Probe:
    import docker

    try:
        client = docker.from_env(environment=settings, timeout=5)
        client.images.get_registry_data("debian:stable-slim")
    except (docker.errors.DockerException, OSError) as problem:
        reason = str(getattr(problem, "explanation", None) or problem).split(": ")[-1]
        return Probe(False, f"the image registry cannot be reached ({reason})")
    return Probe(True)


def _remembered(name: str, probe) -> dict:
    """Return a probe's answer, from the cache where it was found since the last boot."""
    path = cache() / "probes" / f"{name}.json"
    boot = round(psutil.boot_time() / 60)
    try:
        known = json.loads(path.read_text())
        if abs(known["boot"] - boot) <= 1 and time.time() - known["time"] < 86400:
            return known["answer"]
    except (OSError, ValueError, KeyError):
        pass
    answer = probe()
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"boot": boot, "time": time.time(), "answer": answer}))
    return answer


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _full_disk(what: str) -> str:
    free = shutil.disk_usage(cache()).free // 2**20
    return (
        f"The disk is full ({free} MB free) while {what[0].lower()}{what[1:]}: "
        "free some space, or let LAB_CACHE name a folder on another disk."
    )


def _memory_limit() -> int:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return int((CGROUPS / name).read_text())
        except (OSError, ValueError):
            continue
    return 2**62


def _memory_held() -> int:
    """Return the bytes that this control group has taken and cannot give back (no file pages)."""
    for folder, used in ((CGROUPS, "current"), (CGROUPS / "memory", "usage_in_bytes")):
        try:
            held = int((folder / f"memory.{used}").read_text())
            lines = (folder / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        known = {name: int(value) for name, value in map(str.split, lines)}
        return held - sum(
            known.get(f"total_{name}", known.get(name, 0))
            for name in ("active_file", "inactive_file")
        )
    return 0


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
