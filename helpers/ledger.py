"""What has been started, and how it is stopped.

Everything the course starts is written here *before* it starts: one small JSON file per entry
under ``LAB_HOME/ledger``. That is what lets ``down`` clean up after a killed kernel or a reboot.

A process is found again by the variable ``LAB_LEDGER_ID`` in its environment: its children inherit
it, and unlike a process number it is never used twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
import uuid
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

MARK = "LAB_LEDGER_ID"
KERNEL = "LAB_KERNEL"  # which kernel has begun a lesson (see ``identity``)
_FOR_ALL: ContextVar[bool] = ContextVar("for all", default=False)


def home() -> Path:
    """Return the folder that holds all state of this learner.

    ``LAB_HOME`` moves it; otherwise it is ``.lab`` in the repository. Only its owner may enter.
    """
    path = Path(os.environ.get("LAB_HOME") or Path(__file__).parents[1] / ".lab").absolute()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@dataclass
class Entry:
    """One thing that was started: a process, an Engine's containers, or files.

    Attributes:
        id: the entry's own name on disk, sorted by time of recording.
        kind: ``process``, ``files``, ``engine`` or ``command``.
        name: what a reader calls it ("virtual machine web").
        since: seconds since the epoch.
        facts: what is needed to stop it and worth showing (ports, paths, labels).
        pid: number of the process, once it runs (for the reader; it is not used to find it).
        parent: id of the entry whose process has recorded this one, if one has.
        users: the kernels whose lessons use it. If empty, a terminal has asked for it, or it is
            for all lessons: then the end of no kernel is a reason to stop it.
    """

    id: str
    kind: str
    name: str
    since: float
    facts: dict = field(default_factory=dict)
    pid: int | None = None
    parent: str | None = None
    users: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The file that holds this entry."""
        return _folder() / f"{self.id}.json"

    def save(self) -> Entry:
        """Write the entry to disk in one step, so that a crash leaves the old or the new one."""
        draft = self.path.with_suffix(f".{os.getpid()}.draft")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(self.path)
        return self

    def forget(self) -> None:
        """Take the entry out of the ledger."""
        self.path.unlink(missing_ok=True)

    def alive(self) -> bool:
        """Say whether what the entry stands for is there now."""
        if self.kind == "process":
            return bool(_processes(self))
        if self.kind == "files":
            return Path(self.facts["path"]).exists()
        if self.kind == "command":
            return _says(self.facts["alive"]) != ""
        return _labelled(self) != []


def record(kind: str, name: str, **facts) -> Entry:
    """Write down what is about to start and return the entry.

    Args:
        kind: ``files`` (fact ``path``), ``engine`` (facts ``env``, ``label``), ``process``, or
            ``command`` (fact ``stop``: a command that removes it; fact ``alive``: one that prints
            nothing once it is gone).
        name: what a reader calls it.
        facts: what is needed to stop it.
    """
    now = time.time()
    one = f"{now:017.6f}-{uuid.uuid4().hex[:8]}"
    kernel = os.environ.get(KERNEL)
    users = [kernel] if kernel and not _FOR_ALL.get() else []
    return Entry(one, kind, name, now, facts, parent=os.environ.get(MARK), users=users).save()


@contextlib.contextmanager
def for_all() -> Iterator[None]:
    """Record what is recorded in the block for all lessons, and not for the one that asks."""
    before = _FOR_ALL.set(True)
    try:
        yield
    finally:
        _FOR_ALL.reset(before)


def use(*found: Entry) -> None:
    """Write down that this kernel's lesson uses what runs already, or that a terminal does."""
    kernel = os.environ.get(KERNEL)
    for entry in found:
        users = sorted({*entry.users, kernel}) if kernel else []
        if entry.users and users != entry.users:
            entry.users = users
            entry.save()


def identity(pid: int) -> str:
    """Name a kernel's process so that no later one has the same name; empty if there is none.

    Its command line names a file of its own. (The time of its start moves with the clock.)
    """
    with contextlib.suppress(psutil.Error):
        if words := psutil.Process(pid).cmdline():
            return f"{pid}-{zlib.crc32(' '.join(words).encode()):08x}"
    return ""


def spawn(
    name: str, command: list[str], *, env=None, log=None, facts=None, **popen
) -> tuple[subprocess.Popen, Entry]:
    """Record a process, then start it in a session of its own.

    Args:
        name: what a reader calls it.
        command: program and arguments.
        env: its environment (default: ours).
        log: file that receives its output (default: nowhere).
        facts: what is worth showing, for example its ports.
        popen: further arguments of ``subprocess.Popen``.

    Returns:
        The process and its entry.

    Raises:
        OSError: the program cannot be started; nothing stays in the ledger.
    """
    entry = record("process", name, **(facts or {}))
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    streams["stderr"] = subprocess.STDOUT
    try:
        with contextlib.ExitStack() as stack:
            if log is not None:
                streams["stdout"] = stack.enter_context(open(log, "ab"))
            process = subprocess.Popen(
                command,
                env={**(os.environ if env is None else env), MARK: entry.id},
                start_new_session=True,
                **{**streams, **popen},
            )
    except OSError:
        entry.forget()
        raise
    entry.pid = process.pid
    return process, entry.save()


def entries(kind: str | None = None) -> list[Entry]:
    """Return what stands in the ledger, oldest first."""
    found = []
    for path in sorted(_folder().glob("*.json")):
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
            found.append(Entry(**json.loads(path.read_text())))
    return [entry for entry in found if kind in (None, entry.kind)]


def stop(entry: Entry, patience: float | None = None) -> bool:
    """Stop one entry and say whether it is gone. Stopping twice is no error.

    Args:
        entry: what to stop.
        patience: seconds a process gets between the polite signal and the last one; by default
            what its fact ``patience`` says, or 5.
    """
    if entry.kind == "process":
        waits = entry.facts.get("patience", 5.0) if patience is None else patience
        _stop_processes(entry, waits)
    elif entry.kind == "files":
        path = Path(entry.facts["path"])
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    elif entry.kind == "command":
        _says(entry.facts["stop"])
    else:
        remove_labelled(entry)
    if entry.alive():
        return False
    entry.forget()
    return True


def down() -> list[str]:
    """Stop everything, newest first, and return the names of what could not be stopped.

    What was started later may stand on what was started earlier, so the reverse order is the
    order of dependency. What a program starts before its own turn to be stopped comes after
    that. An empty list is the proof that nothing is left.
    """
    tried: set[str] = set()
    while found := [entry for entry in reversed(entries()) if entry.id not in tried]:
        for entry in found:
            stop(entry)
        tried |= {entry.id for entry in found}
    for draft in _folder().glob("*.draft"):
        draft.unlink(missing_ok=True)
    return [entry.name for entry in entries()]


def holds(process: psutil.Process) -> int:
    """Return the bytes of memory that a process holds.

    A page that several processes share counts by its share where the system tells it (PSS), and
    not at all where it does not (somebody else's process).
    """
    try:
        return process.memory_full_info().pss
    except (psutil.AccessDenied, AttributeError):
        known = process.memory_info()
        return known.rss - getattr(known, "shared", 0)


def memory() -> dict[str, int]:
    """Return the MB of memory that the processes of each entry hold, by the entry's id."""
    held: dict[str, int] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if owner := process.environ().get(MARK):
                held[owner] = held.get(owner, 0) + holds(process)
    return {owner: size >> 20 for owner, size in held.items()}


def _folder() -> Path:
    path = home() / "ledger"
    path.mkdir(exist_ok=True)
    return path


def _processes(entry: Entry) -> list[psutil.Process]:
    """Return the entry's process and its children, whichever session they moved to."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == entry.id:
                found.append(process)
    return found


def _says(command: list[str]) -> str:
    """Return what a command prints, or why it fails, which is never empty."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return str(problem)
    return answer.stdout.strip() or (f"status {answer.returncode}" if answer.returncode else "")


def _stop_processes(entry: Entry, patience: float) -> None:
    """Ask all of them to end, wait, then kill what is left and what that has started meanwhile."""
    processes = _processes(entry)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(processes, timeout=patience)
    deadline = time.monotonic() + 5
    while (left := _processes(entry)) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=0.2)
    if entry.pid:  # if it was our own child, collect it
        with contextlib.suppress(OSError):
            os.waitpid(entry.pid, os.WNOHANG)


_LISTINGS = {
    "container": ["ps", "-aq"],
    "network": ["network", "ls", "-q"],
    "volume": ["volume", "ls", "-q"],
    "image": ["images", "-q"],
}


def _labelled(entry: Entry, more: str = "") -> list[tuple[str, str]] | None:
    """List (kind, id) of all that carries our label in the Engine; None if it does not answer."""
    found, labels = [], filter(None, [entry.facts["label"], more])
    chosen = [word for label in labels for word in ("--filter", f"label={label}")]
    for kind, listing in _LISTINGS.items():
        answer = _docker(entry, *listing, *chosen)
        if answer is None:
            return None
        ids = list(dict.fromkeys(answer.split()))
        ours = kind == "image" and not more
        found += _ours(entry, ids) if ours else [(kind, one) for one in ids]
    return found


def _ours(entry: Entry, labelled: list[str]) -> list[tuple[str, str]]:
    """List the images, and the names of images, that we may remove.

    A base image has one name for all who use an Engine, so everybody who needs it gives it a
    second one, ``lab-…/NAME``. While somebody else's is there, only ours is removed.
    """
    prefix, found = entry.facts["label"].replace("=", "-") + "/", []
    lines = _docker(entry, "images", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}") or ""
    names: dict[str, list[str]] = {}
    for line in lines.splitlines():
        image, name = line.split()
        names.setdefault(image, []).append(name)
    for image, known in names.items():
        mine = [name for name in known if name.startswith(prefix)]
        if any(re.match("lab-[0-9a-f]+/", name) for name in known if name not in mine):
            found += mine
        elif image in labelled:
            found.append(image)
        elif mine:  # made by somebody who has left
            found += mine + [name for name in known if prefix + name in mine]
    return [("image", one) for one in found]


def remove_labelled(entry: Entry, more: str = "") -> None:
    """Remove all that carries our label in an Engine, or what carries one more label too.

    Args:
        entry: the Engine's.
        more: the other label (``page=04``).
    """
    for kind, one in _labelled(entry, more) or []:
        options = {"container": ["-f", "-v"], "image": ["-f"]}.get(kind, [])
        _docker(entry, kind, "rm", *options, one)


def _docker(entry: Entry, *arguments: str) -> str | None:
    environment = {**os.environ, **entry.facts["env"]}
    try:
        answer = subprocess.run(
            ["docker", *arguments], env=environment, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None
