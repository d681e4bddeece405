"""Nothing leaves this machine: AWS clients in Python reach its loopback and nothing else.

A process is guarded when ``LAB_AWS`` is set: to ``local``, or to ``real`` as long as
``helpers.cloud`` has not compared the account with the one that the learner typed. ``everywhere``
sees to it that every Python program is guarded from its start, the ``aws`` command among them.
"""

from __future__ import annotations

import functools
import importlib.abc
import ipaddress
import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

SESSIONS = ("botocore.httpsession", "awscli.botocore.httpsession")
# Here the CLI's version 1 says that `aws sqs` goes to AWS, whatever AWS_ENDPOINT_URL says.
LEGACY = "awscli.customizations.overridesslcommonname"
HOOK = 'import os; os.environ.get("LAB_AWS") and __import__("helpers.guard").guard.here()\n'


class Refused(RuntimeError):
    """A request would have left this machine; no packet was sent."""


def here() -> None:
    """Guard this process, whether or not it has loaded botocore yet. Repeating is no error."""
    for name in SESSIONS:
        after_import(name, _wrap)
    after_import(LEGACY, lambda module: module.SSL_COMMON_NAMES.clear())


def everywhere() -> None:
    """Let every Python program of this environment guard itself when it starts.

    Raises:
        OSError: the environment cannot be written to.
    """
    path = Path(sysconfig.get_path("purelib")) / "lab-guard.pth"
    if not path.exists() or path.read_text() != HOOK:
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(HOOK)
        draft.replace(path)


def check(url: str) -> None:
    """Let the address of a request pass, or not.

    Raises:
        Refused: it is not on this machine's loopback, and no real account is opted in to.
    """
    from urllib3.util import parse_url  # what will make the connection reads it in the same way

    host = (parse_url(url).host or "").strip("[]")
    if not loopback(host) and not opted_in():
        raise Refused(
            f"{host} was not asked: AWS commands stay on this machine, where cloud.start() (in a "
            'terminal: eval "$(python -m helpers env)") leads to the local cloud; for a real '
            "account set LAB_AWS=real, LAB_AWS_PROFILE and LAB_AWS_ACCOUNT, and do the same."
        )


def opted_in() -> bool:
    """Say whether the learner has named a profile and an account that proved to belong together."""
    named = [os.environ.get(name) for name in ("LAB_AWS_PROFILE", "LAB_AWS_ACCOUNT")]
    proof = os.environ.get("LAB_AWS_CHECKED")
    return os.environ.get("LAB_AWS") == "real" and all(named) and proof == " ".join(named)


def after_import(name: str, then: Callable[[ModuleType], object]) -> None:
    """Call a function with a module once that is loaded: now, or right after its import."""
    if name in sys.modules:
        then(sys.modules[name])
    else:
        if not any(isinstance(finder, _Watch) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Watch())
        _waiting[name] = then


_waiting: dict[str, Callable[[ModuleType], object]] = {}


class _Watch(importlib.abc.MetaPathFinder):
    """Finds modules as the other finders do, and adds a step to the loading of some."""

    def find_spec(self, name, path=None, target=None):
        then = _waiting.pop(name, None)
        if then is None:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)):
                spec.loader.exec_module = _both(spec.loader.exec_module, then)
                return spec
        _waiting[name] = then
        return None


def _both(first: Callable, second: Callable) -> Callable:
    def run(module: ModuleType) -> None:
        first(module)
        second(module)

    return run


def loopback(host: str) -> bool:
    """Say whether a host is this machine's loopback, by its name or its address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _wrap(module: ModuleType) -> None:
    session = module.URLLib3Session
    if hasattr(session.send, "__wrapped__"):
        return

    @functools.wraps(session.send)
    def send(self, request):
        check(request.url)
        if proxy := self._proxy_config.proxy_url_for(request.url):
            check(proxy)
        return send.__wrapped__(self, request)

    session.send = send
