"""Compile the benchmark, once: one static program for Linux on x86-64."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from helpers import machine

SOURCE = Path(__file__).with_name("bench.c")
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O3", "-static", "-s"]


class BenchError(RuntimeError):
    """Something could not be measured; the message says why."""


def binary() -> Path:
    """Return the benchmark program, compiled on first use.

    The machine's own C compiler is taken if it links statically; otherwise the one in PyPI's
    package ``ziglang`` (100 MB to fetch, 400 MB while it works, removed afterwards).

    Raises:
        BenchError: neither works here.
    """
    version = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:10]
    return machine.cached(f"bench/{version}", _make, what="Compiling the benchmark", seconds=2)


def _make(draft: Path) -> None:
    if sys.platform == "linux" and not _wrong([os.environ.get("CC", "cc")], draft):
        return
    print("with a compiler from PyPI, about 90 s … ", end="", flush=True)
    with tempfile.TemporaryDirectory(dir=machine.cache()) as scratch:
        install = [sys.executable, *"-m pip install --quiet --no-deps --target".split(), scratch]
        wrong = _wrong([*install, "ziglang"])
        compiler = [f"{scratch}/ziglang/zig", "cc", "-target", "x86_64-linux-musl"]
        wrong = wrong or _wrong(compiler, draft, ZIG_GLOBAL_CACHE_DIR=scratch)
    if wrong:
        raise BenchError(
            "The benchmark needs a C compiler that links statically (packages gcc and libc6-dev), "
            f"and the one of PyPI cannot stand in: {wrong}"
        )


def _wrong(command: list[str], target: Path | None = None, **settings: str) -> str:
    """Run a command, or compile to a target, and return what went wrong, or nothing."""
    if target:
        command = [*command, *FLAGS, "-o", str(target), str(SOURCE)]
    try:
        done = subprocess.run(
            command, env={**os.environ, **settings}, capture_output=True, text=True
        )
    except OSError as problem:
        return str(problem)
    return (done.stderr.strip().splitlines() or ["failed"])[-1] if done.returncode else ""
