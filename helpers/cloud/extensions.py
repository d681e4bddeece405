"""Hook what is ours in ``services/`` onto moto's packages, each when it is first needed."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from types import ModuleType

from moto.core.base_backend import BackendDict, backend_lock

from helpers import guard
from helpers.cloud import services

_pending: list[str] = []


def watch() -> None:
    """See to it that each module of ``services/`` is loaded once moto's package of its name is.

    Not at once, since moto's packages import each other in circles, but before the first backend
    of a service is made, or the next call is looked at.
    """
    for module in pkgutil.iter_modules(services.__path__):
        remember = functools.partial(_remember, f"{services.__name__}.{module.name}")
        guard.after_import(f"moto.{module.name}", remember)
    make = BackendDict._create_account_specific_backend
    BackendDict._create_account_specific_backend = lambda self, account: (
        load(),
        make(self, account),
    )


def load() -> None:
    """Load what is due."""
    with backend_lock:
        while _pending:
            importlib.import_module(_pending.pop(0))


def _remember(name: str, _: ModuleType) -> None:
    _pending.append(name)
