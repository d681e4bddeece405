"""The HTTPS API of a node, which the API server calls for logs, commands and forwarded ports."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.web import Application

from helpers.cluster.agent.connections import Command, Forward
from helpers.cluster.agent.handlers import Health, Logs, Node
from helpers.cluster.agent.runtime import Runtime, Settings

PORT = 10250
MAX_MESSAGE, MAX_HEADER = 32 << 20, 1 << 20  # bytes, as API servers have it
POD = "([^/]+)/([^/]+)(?:/[^/]+)?"  # the namespace, the pod, and perhaps its uid
ROUTES = [
    ("/healthz", Health),
    ("/containerLogs/([^/]+)/([^/]+)/([^/]+)", Logs),
    (f"/(exec|attach)/{POD}/([^/]+)", Command),
    (f"/(portForward)/{POD}", Forward),
]


def serve(
    folder: Path, settings: Settings, runtime: Runtime, find: Callable[[str, str], dict | None]
) -> None:
    """Serve a node's API on port 10250 of its address, for ever.

    Args:
        folder: the cluster's: with ``ca.pem``, ``egress.sock`` and ``nodes/NODE/server.pem``
            and ``server.key``. Only clients whose certificate is of that authority and names
            the group ``system:masters`` are served.
        settings: the node's.
        runtime: runs its containers.
        find: returns the pod of a namespace and a name as the API has it (its ``metadata`` and
            the ``status`` last reported), or None.

    Raises:
        OSError: the port is taken, or a file is missing.
    """
    own = folder / "nodes" / settings.name
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(own / "server.pem", own / "server.key")
    node = {"node": Node(runtime, find, folder / "egress.sock")}
    routes = [(*route, node) for route in ROUTES]

    async def listen() -> None:
        application = Application(routes, websocket_max_message_size=MAX_MESSAGE)
        server = HTTPServer(application, ssl_options=context, max_header_size=MAX_HEADER)
        server.listen(PORT, settings.address)
        await asyncio.Event().wait()

    asyncio.run(listen())
