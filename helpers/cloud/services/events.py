"""EventBridge: what happens in the cloud is an event, and rules hand events to their targets."""

from __future__ import annotations

import json

from moto.events import urls
from moto.events.models import EventsBackend, events_backends

from helpers.cloud.environment import ACCOUNT


class Backend(EventsBackend):
    """moto's EventBridge."""

    _url_module = urls


events_backends.backend = Backend


def emit(region: str, source: str, kind: str, resources: list[str], detail: dict) -> None:
    """Put an event of a service on the default bus; the rules that match it act at once.

    Args:
        region: where it happened.
        source: the service (``aws.codecommit``).
        kind: its detail type (``CodeCommit Repository State Change``).
        resources: the ARNs of what it is about.
        detail: what happened, in the service's own form.
    """
    event = {"Source": source, "DetailType": kind, "Resources": resources}
    events_backends[ACCOUNT][region].put_events([event | {"Detail": json.dumps(detail)}])
