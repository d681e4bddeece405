"""Hook what is ours in ``services/`` onto moto's packages, each when it is first needed."""

from __future__ import annotations

import importlib
import pkgutil

from moto.core.base_backend import BackendDict, backend_lock

from helpers.cloud import services

OURS = {module.name for module in pkgutil.iter_modules(services.__path__)}


def watch() -> None:
    """See to it that a module of ``services/`` is loaded before moto's first backend of its name.

    Not at once, since moto's packages import each other in circles, and some are large.
    """
    make = BackendDict._create_account_specific_backend

    def first_load(self: BackendDict, account: str) -> None:
        load(self.backend.__module__.split(".")[1])
        make(self, account)

    BackendDict._create_account_specific_backend = first_load


def load(package: str) -> None:
    """Load what is ours for a package of moto (``ec2``), if there is anything."""
    if package in OURS:
        with backend_lock:
            importlib.import_module(f"{services.__name__}.{package}")
