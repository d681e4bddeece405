"""The image that stands for all of AWS's own build images, which hold 10 GB and more."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from helpers import containers, guard, machine
from helpers.cloud.ecr import registry
from helpers.cloud.stacks.api import Caller
from helpers.cluster import programs
from helpers.containers import images
from helpers.vm import packages

PACKAGES = "git make zip unzip jq curl".split()
UNNEEDED = ("perl", "libperl", "liberror-perl")  # which git would bring
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
AWS = "#!/usr/bin/python3\nimport sys, awscli.clidriver\nsys.exit(awscli.clidriver.main())\n"
# What builds make carries our label, so that `down` finds it; and the name that the account's
# registry has on AWS leads to the one here.
DOCKER = """\
#!/bin/sh
for word; do
    shift
    case $word in *.dkr.ecr.*) word=$(printf %s "$word" | sed "$LAB_REGISTRY") ;; esac
    set -- "$@" "$word"
done
case "$1 $2" in
"image build"* | "container run"* | "container create"* | "network create"* | "volume create"*)
    group=$1; shift ;;
esac
case "${group:-none} $1" in
"none build" | "none run" | "none create" | ?*" build" | ?*" run" | ?*" create")
    verb=$1; shift; exec /usr/bin/docker $group $verb --label "$LAB_LABEL" "$@" ;;
esac
exec /usr/bin/docker "$@"
"""
_loading = threading.Lock()


def ready(name: str, say: Callable[[str], None], call: Caller) -> str:
    """Make sure that a build image is in the Engine, and return its name there.

    Args:
        name: as a project names it: ``aws/codebuild/standard:7.0``, or any that can be pulled.
        say: is told which image it really is, and what takes long.
        call: calls the cloud as the build's role, which may pull from ECR.

    Raises:
        ClientError: the role may not pull it.
        ImageError, PackageError, ProgramError: it cannot be had; the message says why.
    """
    name = registry.local(name)
    if name.startswith(f"{registry.host()}/"):
        _pull(name, call)
        say(f"Image {name}: pulled from ECR")
        return name
    if not name.startswith("aws/codebuild/"):
        say(f"Image {name}: {containers.image(name)}")
        return name
    ours = f"{containers.prefix()}/codebuild"
    say(f"Image {name} has 10 GB; a small one with Debian's tools stands in for it")
    with _loading:
        if not _there(ours) and _there(baked()):
            subprocess.run(["docker", "tag", baked(), ours], check=True)
        elif not _there(ours):
            say("It is made now, once; this may take a minute")
            stand_in = containers.image(images.SMALL[-1]).startswith("stand-in")
            load(ours, containers.label(), images.SMALL[-1] if stand_in else "scratch")
    return ours


def baked() -> str:
    """Return the image's name in an Engine that has had it from the start."""
    return f"lab/codebuild:{_recipe()}"


def _there(name: str) -> bool:
    return bool(subprocess.run(["docker", "images", "-q", name], capture_output=True).stdout)


def _pull(name: str, call: Caller) -> None:
    import docker

    (given,) = call("ecr", "GetAuthorizationToken", {})["authorizationData"]
    user, _, password = base64.b64decode(given["authorizationToken"]).decode().partition(":")
    auth = {"username": user, "password": password}
    docker.from_env().images.pull(name, auth_config=auth)


def load(name: str, label: str, below: str) -> None:
    """Make the image from archives, in the Engine that the environment names.

    Args:
        name: what it is called there.
        label: put on it, so that it is found again and removed.
        below: Python's stand-in, if that is there, or ``scratch``: then its files come with it.

    Raises:
        ImageError: it could not be made.
    """
    parts = [archive()]
    if below == "scratch":
        parts = [*map(images.archive, images.SMALL), *parts]
    with tempfile.TemporaryDirectory() as context:
        lines = [f"FROM {below}", f"LABEL {label}"]
        for part in parts:
            shutil.copyfile(part, Path(context) / part.name)
            lines.append(f"ADD {part.name} /")
        lines.append(f"ENV PATH={PATH} LANG=C.UTF-8")
        (Path(context) / "Dockerfile").write_text("\n".join(lines))
        built = subprocess.run(
            ["docker", "build", "-q", "-t", name, context],
            env=os.environ | {"DOCKER_BUILDKIT": "0"},
            capture_output=True,
            text=True,
        )
    if built.returncode:
        raise containers.ImageError(f"The build image could not be made: {built.stderr.strip()}")


def archive() -> Path:
    """Return the tar archive of what the image has above Python's."""
    return machine.cached(
        f"images/codebuild-{_recipe()}.tar.gz",
        _write,
        what="Building an image for builds",
        seconds=30,
        replaces=f"codebuild-{'?' * 8}.tar.gz",
    )


def _recipe() -> str:
    parts = [Path(__file__).read_bytes(), Path(guard.__file__).read_bytes()]
    return hashlib.sha256(b"".join(parts) + version("awscli").encode()).hexdigest()[:8]


def _write(draft: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        known = " ".join(images.STAND_INS[name][1] for name in images.SMALL).split()
        known += packages.names("^usr-is-merged$")
        below = packages.fetch(known, Path(scratch) / "below", needed=True)
        there = {package.name for package in below}
        found = packages.fetch(known + PACKAGES, Path(scratch) / "debs", needed=True)
        new = [one for one in found if one.name not in there and not one.name.startswith(UNNEEDED)]
        packages.unpack(new, root)
        for unneeded in ("doc", "locale", "man", "info", "lintian"):
            shutil.rmtree(root / "usr/share" / unneeded, ignore_errors=True)
        shutil.copy2(packages.program("docker", "docker.io", "docker-cli"), root / "usr/bin/docker")
        shutil.copy2(programs.kubectl(), root / "usr/bin/kubectl")
        _add_aws(root / "usr/local", Path(scratch) / "python")
        for name, script in (("docker", DOCKER), ("aws", AWS)):
            (root / "usr/local/bin" / name).write_text(script)
            (root / "usr/local/bin" / name).chmod(0o755)
        owned = ["--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"]
        subprocess.run(["tar", "-cz", *owned, "-f", draft, "-C", root, "usr", "etc"], check=True)


def _add_aws(local: Path, system: Path) -> None:
    """Add the ``aws`` command and boto3 of this version; they are guarded there as here.

    Args:
        local: the image's ``/usr/local``.
        system: a folder for the image's Python, which compiles them so that they start faster.
    """
    (python,) = (one for one in packages.depends("python3") if re.fullmatch(r"python3\.\d+", one))
    folder = local / "lib" / python / "dist-packages"
    wanted = [f"{name}=={version(name)}" for name in ("awscli", "boto3")]
    words = "-m pip install --quiet --disable-pip-version-check --no-compile --only-binary=:all:"
    words = [*words.split(), "--python-version", python.removeprefix("python"), "--target", folder]
    done = subprocess.run([sys.executable, *words, *wanted], capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise containers.ImageError(f"The aws command could not be fetched: {said}")
    shutil.rmtree(folder / "bin", ignore_errors=True)
    shutil.rmtree(folder / "awscli/examples", ignore_errors=True)
    for model in (folder / "awscli/botocore/data").glob("*/*/service-2.json"):  # 100 MB otherwise
        Path(f"{model}.gz").write_bytes(gzip.compress(model.read_bytes()))
        model.unlink()
    (folder / "helpers").mkdir()
    shutil.copy2(guard.__file__, folder / "helpers")
    (folder / "lab-guard.pth").write_text(guard.HOOK)
    (local / "bin").mkdir(parents=True)
    system.mkdir()
    for below in images.SMALL:
        subprocess.run(["tar", "-x", "-f", images.archive(below), "-C", system], check=True)
    words = "-m compileall -q --invalidation-mode unchecked-hash -p /usr/local -s".split()
    libraries = system / f"usr/lib/{platform.machine()}-linux-gnu"
    environment = {"PYTHONHOME": str(system / "usr"), "LD_LIBRARY_PATH": str(libraries)}
    program = system / "usr/bin" / python
    subprocess.run([program, *words, local, folder], env=environment, capture_output=True)
