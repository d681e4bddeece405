"""Checks of exercises: passed and why, or not yet and a hint."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Iterator

from helpers.lesson.figures import COLOURS
from helpers.lesson.notes import notes
from helpers.lesson.places import here


def check(title: str) -> Callable[[Callable[[], Iterator[tuple[bool, str]]]], None]:
    """Check an exercise: a decorator for a generator that yields (is it so, hint if not) pairs.

    The pairs are looked at in order, and the first that does not hold gives the hint. Whatever
    goes wrong in the learner's work becomes a hint too: a check never raises. A pass adds the
    generator's docstring: why it is so, or what it is good for. It is noted (see ``progress``),
    and what is noted stays.

    Args:
        title: what is checked, as a statement ("The machine has two processors").

    Example::

        @lesson.check("The machine has two processors")
        def _():
            '''QEMU runs one thread for each.'''
            yield "twin" in globals(), "Boot a machine and call it `twin`."
            yield twin.settings.cpus == 2, "Pass `cpus=2` to `vm.boot`."
    """

    def decide(steps: Callable[[], Iterator[tuple[bool, str]]]) -> None:
        try:
            hint = next((hint for holds, hint in steps() if not holds), None)
        except NameError as problem:
            hint = f"{problem}: do the step that makes it, and check again."
        except Exception as problem:
            hint = f"The check stumbled over your answer ({type(problem).__name__}: {problem})."
        if hint is None and here.number is not None:
            with notes(here.number) as known:
                known["passed"].setdefault(title, time.time())
        _show(title, passed=hint is None, more=(steps.__doc__ or "") if hint is None else hint)

    return decide


def _show(title: str, passed: bool, more: str) -> None:
    from IPython.display import display

    sentence = f"{title}. {more}" if more else title
    text = f"pass: {sentence}" if passed else f"not yet: {sentence}"
    mark, colour = ("✓ pass", COLOURS["namespaces"]) if passed else ("○ not yet", COLOURS["tcg"])
    words = re.sub(r"`([^`\n]+)`", r"<code>\1</code>", html.escape(sentence, quote=False))
    box = f"border-left: 4px solid {colour}; padding: 0.3em 0.8em"
    markup = f'<div role="status" style="{box}"><b>{mark}</b> – {words}</div>'
    display({"text/plain": text, "text/html": markup}, raw=True)
