"""Run the notebooks in a container that is restricted as Binder's pod is.

    python tests/binder_pod.py [NOTEBOOK…]

User 1000, no new privileges, Docker's default seccomp profile, one processor, 2 GB (or what
``POD_MEMORY`` says, such as ``1g``) and no network; no Docker inside. It has this machine's
programs, read-only, and what ``binder/postBuild`` prepares.
What differs from the real pod: the programs are not Ubuntu's, and no hub stands in front.

It needs this machine's Docker Engine and the right to use it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from helpers import containers, machine

ROOT = Path(__file__).resolve().parents[1]
FILES = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True,
                       capture_output=True, check=True).stdout.split()  # fmt: skip
SYSTEM = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives", "/etc/ssl"]
HOME = "/home/jovyan"  # in the container, as on Binder
LIMITS = "--user 1000:1000 --security-opt no-new-privileges --cap-drop ALL --cpus 1"


def main() -> int:
    """Prepare as Binder's build does, run the notebooks in the container, and tell the time."""
    os.environ["LAB_ENGINE"] = "machine"
    containers.engine()
    prepare = [sys.executable, "-m", "helpers", "prepare", "--engine"]
    subprocess.run(prepare, check=True)
    with tempfile.TemporaryDirectory(prefix="binder-") as scratch:
        home = Path(scratch) / "jovyan"
        course = home / "course"
        for name in FILES:
            (course / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, course / name)
        shutil.copytree(machine.cache(), home / "cache", symlinks=True)
        subprocess.run(["chown", "-R", "1000:1000", str(home)], check=True)
        os.chmod(scratch, 0o755)
        begin = time.monotonic()
        status = subprocess.run(_command(home, sys.argv[1:])).returncode
        print(f"{time.monotonic() - begin:.0f} s in the container, exit status {status}")
    return status


def _command(home: Path, notebooks: list[str]) -> list[str]:
    image = f"{containers.label().replace('=', '-')}/nothing:latest"
    empty = ["docker", "import", "--change", f"LABEL {containers.label()}", "-", image]
    subprocess.run(empty, input=bytes(10240), check=True, stdout=subprocess.DEVNULL)
    seen = [*SYSTEM, sys.prefix, str(Path(sys.base_prefix).resolve())]
    mounts = [f"--volume={path}:{path}:ro" for path in dict.fromkeys(seen) if Path(path).exists()]
    settings = {
        "HOME": HOME,
        "LAB_CACHE": f"{HOME}/cache",
        "LAB_OFFLINE": "1",
        "PYTHONPATH": f"{HOME}/course",
        "PATH": f"{sys.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    run = ["docker", "run", "--rm", "--label", containers.label(), "--network", "none"]
    run += ["--memory", os.environ.get("POD_MEMORY", "2g")]
    run += [*LIMITS.split(), *mounts, f"--volume={home}:{HOME}", "--tmpfs", "/tmp:mode=1777"]
    run += [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
    tests = "python -m pytest -p no:cacheprovider --durations=5 --nbval-lax --nbval-current-env"
    shell = f'python -m helpers doctor; {tests} "$@" && python -m helpers down'
    names = notebooks or [f"notebooks/{name}" for name in sorted(os.listdir(ROOT / "notebooks"))
                          if name[:2] in ("00", "01", "02", "03", "07", "08", "09")]  # fmt: skip
    return [*run, "--workdir", f"{HOME}/course", image, "sh", "-c", shell, "sh", *names]


if __name__ == "__main__":
    sys.exit(main())
