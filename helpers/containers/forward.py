"""Open or close a port of the host's loopback for a container in the Engine's virtual machine.

QEMU runs this for each connection that ``guest/publish`` makes to 10.0.2.100; the connection is
standard input and output, the machine's folder is the working directory.
"""

import sys
from pathlib import Path

from helpers.vm.qmp import Monitor


def main() -> None:
    """Read ``add|remove tcp|udp PORT``, do it, and answer ``ok`` or a reason."""
    action, protocol, port = sys.stdin.readline().split()
    host = f"{protocol}:127.0.0.1:{int(port)}"
    with Monitor(Path("qmp.sock").absolute()) as monitor:
        if action == "add":
            refused = monitor.human(f"hostfwd_add net {host}-:{int(port)}").strip()
        else:
            monitor.human(f"hostfwd_remove net {host}")
            refused = ""
    print(f"Bind for 127.0.0.1:{port} failed: port is already allocated" if refused else "ok")


if __name__ == "__main__":
    main()
