"""One page that draws what exists right now and changes as cells run, and faults to show."""

from helpers.view.server import start

__all__ = ["start"]
