"""Set up what is missing: system packages, the Docker Engine's start, the virtual environment.

Run by any Python 3, with the standard library only: ``python3 helpers/install.py``. A second run
finds everything in place and costs a fraction of a second. ``LAB_NO_SYSTEM=1`` leaves the system
alone. With the argument ``book`` it makes the environment that makes the book, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
BOOK = ROOT / ".venv-book"  # apart, because awscli needs an older docutils than Sphinx
VERSIONS = [(3, 11), (3, 12), (3, 13)]
SOCKET = "/var/run/docker.sock"
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

# Debian's and Ubuntu's packages, and how one sees that each is there.
PACKAGES = {
    "qemu-system-x86": lambda: has("qemu-system-x86_64"),
    "qemu-utils": lambda: has("qemu-img"),
    "docker.io": lambda: docker() != "none" or has("dockerd"),
    "docker-cli": lambda: has("docker"),  # a package of its own in newer releases
    "iptables": lambda: has("iptables"),
    "gcc": lambda: has("gcc"),
    "libc6-dev": lambda: any(Path("/usr/lib").glob("*/libc.a")),
}


def has(program: str) -> bool:
    """Say whether a program is installed."""
    return shutil.which(program, path=PATH) is not None


def works(*command: str) -> bool:
    """Say whether a command runs and succeeds; its output is thrown away."""
    try:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.run(command, stdin=subprocess.DEVNULL, **quiet).returncode == 0
    except OSError:
        return False


def step(what: str, *command: str, seconds: int = 0) -> bool:
    """Run one step of the set-up, say how long it takes, and show its output if it fails."""
    print(f"{what} (about {seconds} s) … ", end="", flush=True)
    begin = time.monotonic()
    try:
        run = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        failed, output = run.returncode != 0, run.stdout
    except OSError as problem:
        failed, output = True, str(problem)
    print(f"{'failed' if failed else 'done'} after {time.monotonic() - begin:.0f} s", flush=True)
    if failed:
        print("\n".join("    " + line for line in output.strip().splitlines()[-8:]), flush=True)
    return not failed


def become_root() -> list[str] | None:
    """Return what to put before a command so that root runs it, or None if we may not."""
    if os.geteuid() == 0:
        return []
    return ["sudo", "-n"] if works("sudo", "-n", "true") else None


def docker() -> str:
    """Say what the machine's Docker socket does: ``answers``, ``denied`` or ``none``."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(3)
            connection.connect(SOCKET)
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return "answers" if connection.recv(12).endswith(b"200") else "none"
    except PermissionError:
        return "denied"
    except OSError:
        return "none"


def install_packages(python: str) -> None:
    """Install the system packages that are missing, or print the line that does it."""
    missing = [package for package, there in PACKAGES.items() if not there()]
    if not works(python, "-c", "import ensurepip") and not (VENV / "installed").exists():
        missing.append("python{}.{}-venv".format(*version(python)))
    if sys.platform == "darwin" and not has("qemu-system-x86_64"):
        print("For virtual machines: brew install qemu (and run make again)")
    if not missing or sys.platform == "darwin":
        return
    if not has("apt-get"):
        print("Not on this machine, and the lessons do more with it:", ", ".join(missing))
        return
    root = become_root()
    if root is not None:
        step("System: package lists", *root, "apt-get", "-q", "update", seconds=15)
    # A name that this release does not know would make the whole line fail.
    known = [package for package in missing if works("apt-cache", "show", package)]
    missing = known or [package for package in missing if package != "docker-cli"]
    install = ["apt-get", "install", "-q", "--yes", "--no-install-recommends", *missing]
    if root is None and missing:
        print("For more of the real thing, run this once:\n    sudo", " ".join(install))
    elif missing:
        quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1"]
        install[1:1] = ["-o", "DPkg::Lock::Timeout=120"]
        step("System: " + " ".join(missing), *root, *quiet, *install, seconds=60)


def start_docker() -> None:
    """Start the installed Docker Engine if it does not run, and wait until it answers."""
    if not has("dockerd") or docker() == "answers":
        return
    root = become_root()
    if docker() == "denied":
        print("To use this machine's Docker Engine (then log in again):")
        print("    sudo usermod -aG docker $USER")
    elif root is None:
        print("To start this machine's Docker Engine: sudo systemctl start docker")
    elif Path("/run/systemd/system").is_dir():
        step("System: starting Docker", *root, "systemctl", "start", "docker", seconds=5)
    else:  # no init system: start it ourselves
        print("System: starting Docker (about 3 s) … ", end="", flush=True)
        command = [*root, "sh", "-c", "exec dockerd >>/var/log/dockerd.log 2>&1"]
        nowhere = subprocess.DEVNULL
        daemon = subprocess.Popen(
            command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True
        )
        end = time.monotonic() + 15
        while docker() == "none" and daemon.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        print("failed: see /var/log/dockerd.log" if docker() == "none" else "done", flush=True)


def version(python: str) -> tuple[int, int] | None:
    """Return the version of a Python as (major, minor), or None if it does not run."""
    show = "import sys; print(*sys.version_info[:2], sys.implementation.name)"
    try:
        run = subprocess.run([python, "-c", show], capture_output=True, text=True)
        major, minor, implementation = run.stdout.split()
    except (OSError, ValueError):
        return None
    return (int(major), int(minor)) if implementation == "cpython" else None


def find_python() -> str:
    """Return the Python to build on: this one if it is in range, else the newest that runs."""
    named = [f"python{major}.{minor}" for major, minor in reversed(VERSIONS)]
    ours = getattr(sys, "_base_executable", sys.executable)  # not that of a virtual environment
    for python in [ours, *named]:
        if version(python) in VERSIONS:
            return python
    sys.exit(
        "This course needs Python 3.11, 3.12 or 3.13, and none was found.\n"
        "    Debian, Ubuntu: sudo apt-get install python3 python3-venv\n"
        "    macOS: brew install python@3.13        others: https://www.python.org/downloads"
    )


def fingerprint(python: str) -> str:
    """Return a digest of what the environment is made from; it changes when that changes."""
    parts = [(ROOT / name).read_bytes() for name in ("requirements.txt", "pyproject.toml")]
    parts += [str(ROOT).encode(), repr(version(python)).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def install_environment(python: str, venv: Path, *what: str) -> None:
    """Make a virtual environment and put into it what pip's arguments name."""
    inside = str(venv / "bin" / "python")
    if not step("Python: environment", python, "-m", "venv", "--clear", str(venv), seconds=4):
        sys.exit("The environment could not be made. On Debian: sudo apt-get install python3-venv")
    what = ("-q", *what)
    # uv is many times faster, but does not read pip's configuration: pip remains the last word.
    fast = step("Python: installer", inside, "-m", "pip", "install", "-qq", "uv<1", seconds=2)
    if not (
        fast
        and step(
            "Python: packages",
            inside,
            "-m",
            "uv",
            "pip",
            "install",
            "-p",
            inside,
            *what,
            seconds=20,
        )
    ):
        again = [inside, "-m", "pip", "install", "-q", *what]
        if not step("Python: packages with pip", *again, seconds=90):
            sys.exit("The packages could not be installed: is there a way to PyPI?")
    (venv / "installed").write_text(fingerprint(inside))


def main() -> None:
    """Run every step that is needed."""
    book = sys.argv[1:] == ["book"]
    venv = BOOK if book else VENV
    inside, stamp = str(venv / "bin" / "python"), venv / "installed"
    ready = stamp.exists() and stamp.read_text() == fingerprint(inside)
    python = inside if ready else find_python()
    if not book and not os.environ.get("LAB_NO_SYSTEM"):
        install_packages(python)
        start_docker()
    if not ready:
        helpers = ["-e", f"{ROOT}[book]"] if book else ["-e", str(ROOT)]
        requirements = [] if book else ["-r", str(ROOT / "requirements.txt")]
        install_environment(python, venv, *requirements, *helpers)


if __name__ == "__main__":
    main()
