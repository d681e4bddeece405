"""Carry one connection of an instance to the local cloud.

QEMU runs this for each connection that a guest makes to 10.0.2.100: the guest's side of it is
standard input and output, the cloud's port of 127.0.0.1 the only argument.
"""

import os
import socket
import sys
import threading


def main() -> None:
    """Copy both ways until the cloud ends the connection."""
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as cloud:
        threading.Thread(target=_send, args=(cloud,), daemon=True).start()
        while data := cloud.recv(65536):
            while data:
                data = data[os.write(1, data) :]


def _send(cloud: socket.socket) -> None:
    while data := os.read(0, 65536):
        cloud.sendall(data)
    cloud.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
