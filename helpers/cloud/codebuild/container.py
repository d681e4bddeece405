"""A build's container: one shell that is given commands, one after the other."""

from __future__ import annotations

import contextlib
import io
import re
import secrets
import shlex
import stat
import tarfile
import time
from collections.abc import Callable

from helpers import containers, ledger
from helpers.cloud.archives import Files

HOME = "/codebuild/output"
SOCKET = "/var/run/docker.sock"
# Process 1 hands on what it reads and ends with the cloud, and the container with it. A shell that
# a command has ended (by `exit`) is followed by another with its folder and exported variables.
MAIN = r"""
mkdir -p $3; mkfifo $3/in; exec 9>&1 2>&1
(
    read -r shell <&8
    while :; do "$shell" -c "$1" shell $2 $3; printf '\036%s %s\n' $2 $? >&9; done
) 8<$3/in </dev/null &
exec cat >$3/in
"""
SHELL = r"""
_mark=$1 _keep=$2
[ ! -f $_keep/env ] || . $_keep/env
[ ! -f $_keep/dir ] || cd "$(cat $_keep/dir)"
trap 'export -p >$_keep/env; pwd >$_keep/dir' EXIT
while :; do
    _script=
    while IFS= read -r _line <&8 && [ "$_line" != $_mark ]; do _script="$_script$_line
"; done
    eval "$_script"
    { _status=$?; set +eux; } 2>/dev/null
    printf '\036%s %s\n' $_mark $_status >&9
done
"""
# In a virtual machine this machine's loopback is another one: its ports are brought there.
FORWARD = """
import asyncio, functools, sys
async def pour(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def link(port, reader, writer):
    far, there = await asyncio.open_connection(sys.argv[1], port)
    await asyncio.gather(pour(reader, there), pour(far, writer), return_exceptions=True)
async def main():
    for port in map(int, sys.argv[2:]):
        await asyncio.start_server(functools.partial(link, port), "127.0.0.1", port)
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


class Died(Exception):
    """The container ended before its work did."""


class Container:
    """A container that runs, and its shell."""

    def __init__(
        self, image: str, *, build: str, privileged: bool, watch: Callable[[], None]
    ) -> None:
        """Start a container.

        Args:
            image: an image in the Engine.
            build: the id of the build, which the container carries as its label.
            privileged: whether it may use the Engine itself.
            watch: is called ten times a second while a command runs; what it raises ends that.
        """
        import docker

        self.watch, self._mark, self._begun = watch, secrets.token_hex(16), b""
        self._engine, client = containers.engine(), docker.from_env()
        arguments = ["-c", MAIN, "main", SHELL, self._mark, f"{HOME}/tmp"]
        self._container = client.containers.create(
            image,
            arguments,
            entrypoint="sh",
            stdin_open=True,
            auto_remove=True,
            network_mode="host" if self._here else "bridge",
            labels=dict([containers.label().split("="), ("lab.build", build)]),
            volumes=[f"{SOCKET}:{SOCKET}"] if privileged else [],
        )
        about = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        link = self._container.attach_socket(params=about)
        self._link = getattr(link, "_sock", link)
        self._container.start()

    @property
    def _here(self) -> bool:
        return self._engine.rung == "docker"

    def put(self, files: Files, folder: str) -> None:
        """Write files into a folder of the container, which is made."""
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as tar:
            for path in ["", *files]:
                content, mode = files[path] if path else (b"", 0o755 | stat.S_IFDIR)
                member = tarfile.TarInfo(f"{folder}/{path}".strip("/"))
                member.mode, member.mtime = stat.S_IMODE(mode) or 0o644, time.time()
                if stat.S_ISDIR(mode):
                    member.type = tarfile.DIRTYPE
                elif stat.S_ISLNK(mode):
                    member.type, member.linkname = tarfile.SYMTYPE, content.decode()
                else:
                    member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        self._container.put_archive("/", body.getvalue())

    def get(self, folder: str) -> Files:
        """Return the files and folders below a folder of the container; none if it is not there."""
        import docker

        try:
            chunks, _ = self._container.get_archive(folder)
        except docker.errors.NotFound:
            return {}
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            found: Files = {}
            for member in tar:
                path = member.name.partition("/")[2]
                if member.isdir():
                    found[path] = (b"", stat.S_IFDIR | member.mode)
                elif member.isfile() or member.islnk():
                    found[path] = (tar.extractfile(member).read(), member.mode)
            return found

    def begin(self, shell: str, folder: str, variables: dict[str, str]) -> int:
        """Start the shell in a folder, with variables; 127 if the image does not have it."""
        self._send(f"{shell}\n")
        lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        if not self._here:
            ports = {str(one.facts["port"]) for one in ledger.entries() if "port" in one.facts}
            words = ["python3", "-c", FORWARD, self._engine.host, *ports]
            lines.append(f"{shlex.join(words)} >$HOME/.forward 2>&1 &")
            lines.append("until [ -s $HOME/.forward ]; do sleep 0.05; done")
        return self.run("\n".join([*lines, f"cd {shlex.quote(folder)}"]))

    def run(self, script: str, heard: Callable[[bytes], None] = lambda _: None) -> int:
        """Run a script in the shell, and return the status of its last command.

        Args:
            script: what the shell reads.
            heard: is given what it writes, as it comes.

        Raises:
            Died: the container ended.
        """
        self._send(f"{{\n:\n{script}\n}} </dev/null\n{self._mark}\n")  # it may be a comment only
        end = re.compile(rb"\x1e" + self._mark.encode() + rb" (\d+)\n")
        text = b""
        while True:
            text += self._read()
            if found := end.search(text):
                heard(text[: found.start()])
                return int(found[1])
            ready = text.find(b"\x1e") if b"\x1e" in text else len(text)
            heard(text[:ready])
            text = text[ready:]
            self.watch()

    def ask(self, text: str) -> str:
        """Return a text of a buildspec with its variables and commands filled in."""
        if "$" not in text:
            return text
        heard: list[bytes] = []
        quoted = text.replace('"', '\\"')
        self.run(f'printf %s "{quoted}" >&9', heard.append)
        return b"".join(heard).decode(errors="replace")

    def _send(self, text: str) -> None:
        self._link.settimeout(60)  # a shell reads slowly
        self._link.sendall(text.encode())
        self._link.settimeout(0.1)

    def _read(self) -> bytes:
        """Return what has come within 0.1 s, out of the frames that Docker sends it in."""
        try:
            data = self._link.recv(65536)
        except TimeoutError:
            return b""
        if not data:
            raise Died
        self._begun += data
        text = b""
        while len(self._begun) >= 8:
            end = 8 + int.from_bytes(self._begun[4:8], "big")
            if len(self._begun) < end:
                break
            text, self._begun = text + self._begun[8:end], self._begun[end:]
        return text

    def close(self) -> None:
        """End what runs in the container, and remove it."""
        import docker

        self._link.close()
        with contextlib.suppress(docker.errors.APIError):  # it goes by itself already
            self._container.remove(force=True)
