"""Build the course's image as Binder does, and run the notebooks in a container like its pod.

    python tests/binder_pod.py [NOTEBOOK…]

The image is built as repo2docker would: the packages of ``binder/apt.txt`` as root; then, as user
1000, a virtual environment with ``binder/requirements.txt`` and ``binder/postBuild``. It runs with
no new privileges, no capabilities, Docker's default seccomp profile, one processor, 2 GB (or what
``POD_MEMORY`` says, such as ``1g``) and no network at all. JupyterLab runs beside the notebooks.
What differs from the real one: the system and its Python are Debian's, not Ubuntu's and conda's,
and no hub stands in front.

It needs this machine's Docker Engine, mmdebstrap and a network. ``POD_SEED=1`` takes over this
machine's cache, which spares most of the fetching and building in ``postBuild``.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from helpers import containers, machine

ROOT = Path(__file__).resolve().parents[1]
FILES = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True,
                       capture_output=True, check=True).stdout.split()  # fmt: skip
HOME = "/home/jovyan"  # the repository, as on Binder
LIMITS = "--user 1000:1000 --security-opt no-new-privileges --cap-drop ALL --cpus 1 --network none"
SYSTEM = "ca-certificates curl git less openssh-client procps python3-venv unzip"  # repo2docker's
# What leads this machine's pip and TLS outside, for the build alone.
OUTSIDE = ("/etc/ssl/certs", "/etc/pip.conf", "/etc/resolv.conf", "/opt/pypi", "/opt/pypi-more")
VARIABLES = ("PIP_", "SSL_CERT", "REQUESTS_CA", "CURL_CA", "http_proxy", "https_proxy")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SERVER = "http://127.0.0.1:8888"
ASK = f"import urllib.request as r; r.urlopen('{SERVER}/api', timeout=5)"


def main() -> int:
    """Build the image, run the notebooks in the container, and tell times, memory and sizes."""
    os.environ["LAB_ENGINE"] = "machine"
    containers.engine()
    image = build()
    names = sys.argv[1:] or [name for name in FILES if name.endswith(".ipynb") and "/" in name]
    run = ["docker", "run", "-d", "--label", containers.label(), *LIMITS.split()]
    limit = os.environ.get("POD_MEMORY", "2g")
    run += ["--memory", limit, "--memory-swap", limit, image, "binder/start", "jupyter", "lab"]
    begin = time.monotonic()
    pod = Pod(say(*run, "--ip=127.0.0.1", "--no-browser", "--IdentityProvider.token=").strip())
    try:
        while pod.call("python", "-c", ASK).returncode:
            time.sleep(0.2)
        print(f"JupyterLab answers {time.monotonic() - begin:.1f} s after the container's start")
        print(pod.call("python", "-m", "helpers", "doctor").stdout)
        failed = [name for name in sorted(names) if not try_notebook(pod, name)]
        down = pod.call("python", "-m", "helpers", "down")
        print(down.stdout, f"failed: {' '.join(failed) or 'none'}", sep="")
        return len(failed) + down.returncode
    finally:
        say("docker", "rm", "-f", "-v", pod.id)


def build() -> str:
    """Build the image step by step, print what each adds, and return its name."""
    words = containers.label().replace("=", "-")
    apt, requirements = (ROOT / "binder/apt.txt", ROOT / "requirements.txt")
    system = f"{words}/pod:system-{_digest(SYSTEM.encode(), apt.read_bytes())}"
    if not _there(system):
        with tempfile.TemporaryDirectory() as scratch:
            make = ["mmdebstrap", "--variant=apt", f"--include={SYSTEM.replace(' ', ',')}"]
            sources = Path("/etc/apt/sources.list.d/debian.sources")
            mirror = [str(sources)] if sources.exists() else []
            settings = [f"--aptopt={path}" for path in Path("/etc/apt/apt.conf.d").glob("99*")]
            say(*make, *settings, "stable", f"{scratch}/root.tar", *mirror)
            say("docker", "import", f"{scratch}/root.tar", f"{system}-base")
        script = "apt-get -q update && apt-get -qy install --no-install-recommends "
        script += f"{' '.join(apt.read_text().split())} && rm -rf /var/lib/apt/lists/* "
        script += f"&& useradd --create-home --home-dir {HOME} --uid 1000 jovyan"
        _step(f"{system}-base", system, script, user="0")
    python = f"{words}/pod:python-{_digest(system.encode(), requirements.read_bytes())}"
    if not _there(python):
        script = "python3 -m venv ~/.venv && ~/.venv/bin/pip install --no-cache-dir -qr /dev/stdin"
        _step(system, python, script, requirements.read_bytes())
    with tempfile.TemporaryDirectory(prefix="binder-") as scratch:
        repository = Path(scratch) / "repository"
        for name in FILES:
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, repository / name)
        cache = Path(scratch) / "server-deployment-course"
        cache.mkdir()
        if os.environ.get("POD_SEED"):
            say("cp", "-a", f"{machine.cache()}/.", str(cache))
        say("chown", "-R", "1000:1000", scratch)
        script = "mkdir ~/.cache; cp -a /repository/. ~; cp -a /cache/. ~/.cache; cd; "
        script += "export PATH=$HOME/.venv/bin:$PATH; bash binder/postBuild; "
        script += "du -sm ~/.venv ~/.cache/*/*"
        mounts = [f"{repository}:/repository:ro", f"{cache}:/cache/{cache.name}:ro"]
        course = f"{words}/pod:course"
        _step(python, course, script, mounts=mounts)
    print(say("docker", "history", "--format", "{{.Size}}\t{{.Comment}}", course))
    return course


def _step(below: str, name: str, script: str, given: bytes = b"", user="1000", mounts=()) -> None:
    """Run a script in a container with this machine's network, and keep what it has written."""
    begin = time.monotonic()
    container = f"{containers.prefix()}-pod-build"
    subprocess.run(["docker", "rm", "-f", container], capture_output=True)
    shown = [f"{path}:{path}:ro" for path in OUTSIDE if Path(path).exists()]
    run = ["docker", "run", "-i", "--name", container, "--network", "host", "--user", user]
    run += [f"--volume={mount}" for mount in (*shown, *mounts)]
    run += [f"--env={name}" for name in os.environ if name.startswith(VARIABLES)]
    run += [f"--env=HOME={HOME if user == '1000' else '/root'}", "--workdir", "/"]
    subprocess.run([*run, below, "sh", "-ec", script], input=given, check=True)
    settings = {"HOME": HOME, "REPO_DIR": HOME, "PATH": f"{HOME}/.venv/bin:{PATH}"}
    changes = [f"ENV {key}={value}" for key, value in settings.items()]
    changes = [f"--change={one}" for one in (*changes, f"LABEL {containers.label()}")]
    told = f"{name.rpartition('/')[2]}, {time.monotonic() - begin:.0f} s"
    say("docker", "commit", *changes, f"--change=WORKDIR {HOME}", "-m", told, container, name)
    say("docker", "rm", container)


def _there(name: str) -> bool:
    return bool(say("docker", "images", "-q", name))


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]


def say(*command: str) -> str:
    """Run a command and return what it prints; its errors are shown, and end this program."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


@dataclass
class Pod:
    """The container, and what its control group tells of its memory."""

    id: str
    peak: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        pid = say("docker", "inspect", "-f", "{{.State.Pid}}", self.id).strip()
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        paths = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines}
        old = machine.CGROUPS / "memory"
        self.new = not old.exists()
        root, own = (machine.CGROUPS, paths.get("")) if self.new else (old, paths["memory"])
        self.group = root / own.lstrip("/")
        threading.Thread(target=self._watch, daemon=True).start()

    def call(self, *command: str) -> subprocess.CompletedProcess:
        """Run a command in the container."""
        words = ["docker", "exec", self.id, *command]
        return subprocess.run(words, text=True, capture_output=True)

    def held(self) -> int:
        """Return the MB that its processes hold: all but the pages of files."""
        lines = (self.group / "memory.stat").read_text().splitlines()
        known = {name: int(value) for name, value in map(str.split, lines)}
        names = ("anon", "shmem", "kernel") if self.new else ("total_rss", "total_shmem")
        return sum(known.get(name, 0) for name in names) >> 20

    def most(self, forget: bool = False) -> int:
        """Return the most MB that were taken, pages of files included (they give way)."""
        file = self.group / ("memory.peak" if self.new else "memory.max_usage_in_bytes")
        most = int(file.read_text()) >> 20 if file.exists() else 0
        if forget and not self.new:
            file.write_text("0")
        return most

    def killed(self) -> int:
        """Return how many processes were killed for memory."""
        file = self.group / ("memory.events" if self.new else "memory.oom_control")
        return int(dict(map(str.split, file.read_text().splitlines())).get("oom_kill", 0))

    def _watch(self) -> None:
        while self.group.exists():
            try:
                self.peak = max(self.peak, self.held())
            except OSError:
                return
            time.sleep(0.5)


def try_notebook(pod: Pod, name: str) -> bool:
    """Run one notebook from top to bottom in a kernel of its own, and print a line about it."""
    pod.peak, killed, begin = 0, pod.killed(), time.monotonic()
    pod.most(forget=True)
    words = "python -m pytest -q -p no:cacheprovider --durations=3 --nbval-lax --nbval-current-env"
    done = pod.call(*shlex.split(words), name)
    killed = pod.killed() - killed
    seconds = time.monotonic() - begin
    green = done.returncode == 0
    if not green:
        print(done.stdout, done.stderr, sep="\n")
    print("\n".join(line for line in done.stdout.splitlines() if "s call" in line))
    print(f"{'green' if green else 'RED':6}{Path(name).stem:45}{seconds:6.0f} s, {killed} killed;")
    memory = f"{pod.held()} after, {pod.peak} at most, {pod.most()} with pages of files"
    print(f"      MB of memory: {memory}", flush=True)
    return green


if __name__ == "__main__":
    sys.exit(main())
