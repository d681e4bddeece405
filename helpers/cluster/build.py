"""Build the programs of a control plane from Debian's source package, as one program."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from helpers import machine
from helpers.vm import packages

MAIN = Path(__file__).with_name("kubernetes.go")
# What `make` would generate before it compiles: a description of all types, for `kubectl explain`.
GENERATED = "k8s.io/kubernetes/pkg/generated/openapi"


class BuildError(RuntimeError):
    """The source does not hold what is needed, or does not compile."""


def path() -> Path:
    """Return where the program is in the cache, if it has been built."""
    parts = MAIN.read_bytes(), Path(__file__).read_bytes()
    digest = hashlib.sha256(b"".join(parts)).hexdigest()[:8]
    return machine.cache() / f"kubernetes/debian-{digest}"


def build() -> Path:
    """Return the program; its first argument chooses the part. It is built on first use.

    Raises:
        BuildError: it cannot be built.
        PackageError: its source or the compiler cannot be fetched.
    """
    return machine.cached(
        f"kubernetes/{path().name}",
        _build,
        what="Building Kubernetes from Debian's source",
        seconds=300,
        replaces="debian-????????",
    )


def _build(draft: Path) -> None:
    """Build the three parts as one program: what they share is compiled and stored once."""
    with tempfile.TemporaryDirectory() as scratch:
        top, tools = Path(scratch) / "src/k8s.io", Path(scratch) / "tools"
        top.mkdir(parents=True)
        with tarfile.open(packages.source("kubernetes", Path(scratch) / "source")) as archive:
            archive.extractall(top, filter="tar")
        (unpacked,) = top.iterdir()
        release = unpacked.name.rpartition("-")[2]
        source = unpacked.rename(top / "kubernetes")
        if not (source / "cmd/kube-apiserver").exists() or not (source / "vendor").exists():
            raise BuildError(f"Debian's Kubernetes {release} has a source without the server.")
        wanted = ["golang-go", "golang-github-modern-go-reflect2-dev"]
        packages.unpack(packages.fetch(wanted, Path(scratch) / "debs", needed=True), tools)
        (root,) = tools.glob("usr/lib/go-*")

        def go(*words: str) -> None:
            settings = {"GOROOT": str(root), "GOPATH": scratch, "GOCACHE": f"{scratch}/cache"}
            settings |= {"GO111MODULE": "off", "CGO_ENABLED": "0", "HOME": scratch}
            settings["PATH"] = f"{root}/bin:{os.environ['PATH']}"
            run = subprocess.run(
                ["nice", *words], cwd=source, env=settings, capture_output=True, text=True
            )
            if run.returncode:
                last = (run.stderr.strip().splitlines() or ["nothing"])[-1]
                raise BuildError(f"Kubernetes could not be built; the compiler says: {last}")

        # The copy of this library in the source crashes programs that Go 1.18 or later compiles.
        library = "github.com/modern-go/reflect2"
        shutil.rmtree(source / "vendor" / library)
        shutil.copytree(tools / "usr/share/gocode/src" / library, source / "vendor" / library)
        go(
            "go",
            "build",
            "-o",
            f"{scratch}/generate",
            "./vendor/k8s.io/kube-openapi/cmd/openapi-gen",
        )
        described = ",".join(f"k8s.io/kubernetes/{one}" for one in _described(source))
        go(
            *(
                f"{scratch}/generate",
                "-i",
                described,
                "-p",
                GENERATED,
                "-O",
                "zz_generated.openapi",
            ),
            *("-h", "hack/boilerplate/boilerplate.generatego.txt", "-r", "/dev/null"),
            *("--output-base", f"{scratch}/src"),
        )
        (source / "cmd/course").mkdir()
        shutil.copy2(MAIN, source / "cmd/course/main.go")
        about, (major, minor, _) = "k8s.io/kubernetes/vendor/k8s.io", release.split(".")
        facts = {"gitVersion": f"v{release}", "gitMajor": major, "gitMinor": minor}
        flags = [
            f"-X {about}/component-base/version.{name}={value}" for name, value in facts.items()
        ]
        flags.append(f"-X {about}/client-go/pkg/version.gitVersion=v{release}")
        flags = ["-trimpath", "-ldflags", " ".join(["-s -w", *flags])]
        go("go", "build", *flags, "-o", str(draft), "k8s.io/kubernetes/cmd/course")


def _described(source: Path) -> list[str]:
    """Return the packages whose types the API describes, as they are imported."""
    found = set()
    for top in ("staging/src/k8s.io", "pkg"):
        for file in (source / top).rglob("*.go"):
            folder = str(file.parent.relative_to(source))
            if re.search("testdata|sample", folder) or "/_examples/" in folder:
                continue
            if "+k8s:openapi-gen=" in file.read_text():
                found.add(folder.replace("staging/src", "vendor"))
    return sorted(found)
