"""The process of the local cloud: ``python -m helpers.cloud.server FD``, started by ``local``.

FD is the number of the listening socket that it inherits.
"""

from __future__ import annotations

import logging
import sys
import warnings

from moto.moto_server.werkzeug_app import MotoRequestHandler
from moto.utilities import utils
from werkzeug.serving import make_server

from helpers import guard
from helpers.cloud import calls, environment, extensions, signatures, waiters


def main() -> None:
    """Hook our services onto moto's, and serve until the process is stopped."""
    guard.here()
    extensions.watch()
    utils.load_resource = _without_other_regions(utils.load_resource)
    waiters.write(environment.folder() / "waiters")
    calls.CHECKS.append(signatures.check)
    warnings.filterwarnings("ignore", module="moto")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # addresses may hold signatures
    make_server(
        "127.0.0.1",
        0,
        calls.Dispatcher(environment.folder()),
        threaded=True,
        request_handler=MotoRequestHandler,
        fd=int(sys.argv[1]),
    ).serve_forever()


def _without_other_regions(load_resource):
    """Leave out which instance types other regions offer: that is 60 MB and a second."""

    def load(resource: str):
        if "instance_type_offerings" in resource and environment.REGION not in resource:
            return []
        return load_resource(resource)

    return load


if __name__ == "__main__":
    main()
