"""The process of the local cloud: ``python -m helpers.cloud.server FD``, started by ``local``.

FD is the number of the listening socket that it inherits.
"""

from __future__ import annotations

import logging
import sys
import warnings
from types import ModuleType

from botocore import loaders
from moto.moto_server.werkzeug_app import MotoRequestHandler
from moto.utilities import utils
from werkzeug.serving import make_server

from helpers import guard
from helpers.cloud import calls, environment, extensions, now, permissions, signatures, waiters


def main() -> None:
    """Hook our services onto moto's, and serve until the process is stopped."""
    guard.here()
    extensions.watch()
    _slim()
    waiters.write(environment.folder() / "waiters")
    calls.CHECKS[:0] = [signatures.check, permissions.check]
    calls.DOORS[environment.NOW] = now.door
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


def _slim() -> None:
    """Leave out what costs 100 MB and seconds, and the course does not use.

    That is which instance types other regions offer, what botocore's models explain in words, a
    validator of OpenAPI documents that comes with API Gateway, and moto's engine of CloudFormation,
    which loads all services.
    """
    load = utils.load_resource

    def load_resource(name: str):
        elsewhere = "instance_type_offerings" in name and environment.REGION not in name
        return [] if elsewhere else load(name)

    def validate(_) -> None:
        raise NotImplementedError("OpenAPI documents are not read")

    def silent(pairs) -> dict:
        # A part of a request may have this name too, but it is no text.
        return {n: v for n, v in pairs if n != "documentation" or not isinstance(v, str)}

    utils.load_resource = load_resource
    loaders.OrderedDict = silent  # what botocore makes of each object in a model
    for part in ("", ".validation", ".validation.exceptions"):
        module = ModuleType(f"openapi_spec_validator{part}")
        module.validate, module.OpenAPIValidationError = validate, ValueError
        sys.modules[module.__name__] = module
    for part, names in (
        ("parsing", "Export OutputMap ResourceMap"),
        ("custom_model", "CustomModel"),
    ):
        module = ModuleType(f"moto.cloudformation.{part}")
        module.__dict__.update(dict.fromkeys(names.split()))
        sys.modules[module.__name__] = module


if __name__ == "__main__":
    main()
