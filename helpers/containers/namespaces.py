"""A container from scratch: a process, the kernel's namespaces around it, and limits on it.

    python namespaces.py [--memory MB] [--cpus N] ROOT PROGRAM [ARGUMENT…]

This file uses nothing but Python's standard library, so that it also runs inside a virtual
machine. What Docker adds (layers of images, networks between containers, a filter on system
calls, fewer privileges) is left out; what is left is what a container *is*.
"""

import argparse
import ctypes
import fcntl
import os
import socket
import struct
import sys
import time
from pathlib import Path

NAMESPACES = {  # flags of unshare(2), from linux/sched.h
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
BIND, RECURSIVE, PRIVATE, DETACH = 0x1000, 0x4000, 0x40000, 2  # linux/mount.h
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}  # numbers of the system call
CGROUPS = Path("/sys/fs/cgroup")
libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments) -> None:
    """Call a function of the C library and raise OSError if it fails."""
    words = [a.encode() if isinstance(a, str) else a for a in arguments]
    if getattr(libc, name)(*words) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0) -> None:
    """Mount something (mount(2))."""
    call("mount", source, target, kind, ctypes.c_ulong(flags), None)


class Group:
    """A control group: limits on memory and processor time that may change at any moment."""

    def __init__(self, name: str) -> None:
        """Make the group; version 1 of the interface has a folder for each kind of limit."""
        self.new = (CGROUPS / "cgroup.controllers").exists()
        if self.new:
            (CGROUPS / "cgroup.subtree_control").write_text("+memory +cpu")
        self.memory_folder = CGROUPS / ("" if self.new else "memory") / name
        self.cpu_folder = CGROUPS / ("" if self.new else "cpu") / name
        for folder in (self.memory_folder, self.cpu_folder):
            folder.mkdir(exist_ok=True)

    def limit(self, memory: int | None = None, cpus: float | None = None) -> None:
        """Limit memory (MB) and processor time (1.0 is one processor all the time)."""
        if memory:
            file = "memory.max" if self.new else "memory.limit_in_bytes"
            (self.memory_folder / file).write_text(str(memory << 20))
            swap = self.memory_folder / ("memory.swap.max" if self.new else "memory.swappiness")
            if swap.exists():  # what does not fit shall not go to the disk instead
                swap.write_text("0")
        if cpus and self.new:
            (self.cpu_folder / "cpu.max").write_text(f"{int(cpus * 100000)} 100000")
        elif cpus:
            (self.cpu_folder / "cpu.cfs_quota_us").write_text(str(int(cpus * 100000)))

    def add(self, pid: int) -> None:
        """Put a process, and all that it will start, into the group."""
        for folder in (self.memory_folder, self.cpu_folder):
            (folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Remove the group once its processes have ended, which takes the kernel a moment."""
        deadline = time.monotonic() + 5
        for folder in {self.memory_folder, self.cpu_folder}:
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)


def become_root_inside() -> None:
    """Enter a user namespace in which we are root; outside we stay who we are."""
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", NAMESPACES["user"])
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def enter(root: str, hostname: str, own_network: bool) -> None:
    """Give this process its own host name, network and file tree; ``root`` becomes ``/``."""
    socket.sethostname(hostname)
    if own_network:  # a new network has only "lo", and that is switched off: SIOCSIFFLAGS, IFF_UP
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 1))
    mount("none", "/", flags=RECURSIVE | PRIVATE)  # what we mount is not seen outside
    mount(root, root, flags=BIND | RECURSIVE)
    for device in ("null", "zero", "urandom"):
        Path(root, "dev").mkdir(exist_ok=True)
        Path(root, "dev", device).touch()
        mount(f"/dev/{device}", f"{root}/dev/{device}", flags=BIND)
    Path(root, "proc").mkdir(exist_ok=True)
    try:
        mount("proc", f"{root}/proc", "proc")
    except OSError:  # inside another container the kernel refuses: show the outer processes
        mount("/proc", f"{root}/proc", flags=BIND | RECURSIVE)
    os.chdir(root)
    try:
        call("syscall", PIVOT_ROOT[os.uname().machine], ".", ".")
        call("umount2", ".", DETACH)  # the old root goes out of sight
    except OSError:  # the first file system of a machine cannot be swapped: move over it
        mount(".", "/", flags=0x2000)
        os.chroot(".")
    os.chdir("/")


def run(root, argv, *, hostname="box", own_network=True, memory=None, cpus=None, env=None) -> int:
    """Run a program in a container and return its exit status (128 + signal if it was killed).

    Args:
        root: folder that becomes the container's ``/``.
        argv: program and arguments.
        hostname: the container's host name.
        own_network: give it a network of its own (it has only the loopback device).
        memory: most MB it may use; needs the right to make control groups, as does ``cpus``.
        cpus: most processors it may use, for example 0.5.
        env: its environment.
    """
    group = Group(f"lab-{os.getpid()}") if memory or cpus else None
    if group:
        group.limit(memory, cpus)
    sys.stdout.flush()
    outer = os.fork()
    if outer == 0:
        try:
            if group:
                group.add(os.getpid())
            if os.geteuid():
                become_root_inside()
            names = ["mount", "uts", "ipc", "pid", "cgroup"] + ["net"] * own_network
            call("unshare", sum(NAMESPACES[name] for name in names))
            first = os.fork()  # the first process in the new pid namespace: number 1
            if first == 0:
                enter(os.path.abspath(root), hostname, own_network)
                os.execvpe(argv[0], argv, env or {"PATH": "/bin:/usr/bin", "HOME": "/"})
            os._exit(status(first))
        except BaseException as problem:
            os.write(2, f"namespaces: {problem}\n".encode())
            os._exit(126)
    try:
        return status(outer)
    finally:
        if group:
            group.remove()


def status(pid: int) -> int:
    """Wait for a child and return its exit status as a shell would."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run a program in a container made from scratch.")
    parser.add_argument("--memory", type=int, help="most MB it may use")
    parser.add_argument("--cpus", type=float, help="most processors it may use")
    parser.add_argument("--hostname", default="box")
    parser.add_argument("root", help="folder that becomes the container's /")
    parser.add_argument("argv", nargs=argparse.REMAINDER, help="program and arguments")
    options = vars(parser.parse_args())
    sys.exit(run(options.pop("root"), options.pop("argv"), **options))
