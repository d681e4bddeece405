"""Variables of a pipeline: ``#{namespace.name}`` in the configuration of an action."""

from __future__ import annotations

import re
from collections.abc import Mapping

VARIABLE = re.compile(r"#\{([^{}]*)\}")


class Unresolved(Exception):
    """A variable is not there; the message says which ones."""


def resolve(
    configuration: Mapping[str, str], known: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Return the configuration of an action with the values of its variables.

    A value is put in as it is: what looks like a variable in it is none.

    Args:
        configuration: the action's configuration.
        known: the variables of each namespace.

    Raises:
        Unresolved: there is no such namespace, or no such variable in it.
    """
    missing = []

    def value(found: re.Match) -> str:
        namespace, _, name = found[1].partition(".")
        if name in known.get(namespace, {}):
            return known[namespace][name]
        missing.append(found[0])
        return ""

    resolved = {key: VARIABLE.sub(value, text) for key, text in configuration.items()}
    if missing:
        raise Unresolved(", ".join(dict.fromkeys(missing)))
    return resolved
