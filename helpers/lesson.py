"""What a notebook needs around its lesson: begin it, check an exercise, style a figure, a link."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from helpers import machine

# Okabe and Ito's colours, which colour-blind readers can tell apart (jfly.uni-koeln.de/color).
COLOURS = {
    "process": "#000000",
    "namespaces": "#009E73",
    "namespaces in a VM": "#CC79A7",
    "docker": "#0072B2",
    "docker in a VM": "#56B4E9",
    "kvm": "#E69F00",
    "hvf": "#F0E442",
    "tcg": "#D55E00",
    "published": "#999999",
}
HATCHES = {
    "process": "",
    "namespaces": "//",
    "namespaces in a VM": "++",
    "docker": "\\\\",
    "docker in a VM": "xx",
    "kvm": "..",
    "hvf": "**",
    "tcg": "oo",
    "published": "--",
}
CYCLE = ["#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000"]


def begin(number: int, *parts: str) -> None:
    """Begin a lesson: show what is real here, and let a failing command fail its cell.

    Args:
        number: the notebook's number.
        parts: the rows of the doctor's table to show (``virtual machines``, ``containers``, …);
            all of them if none is named.
    """
    import pandas as pd
    from IPython import get_ipython
    from IPython.display import display

    if shell := get_ipython():
        shell.system_raise_on_error = True  # a failing `!command` raises (IPython 9)
        style()
    pd.set_option("display.max_colwidth", 120)
    rows = [part for part in machine.survey() if not parts or part.part in parts]
    table = pd.DataFrame([(p.part, p.rung, p.real) for p in rows], columns=["part", "rung", "real"])
    table = table.rename(columns={"real": "what is real"}).set_index("part")
    display(table)


def check(title: str, why: str = "") -> Callable[[Callable[[], Iterator[tuple[bool, str]]]], None]:
    """Check an exercise: a decorator for a generator that yields (is it so, hint if not) pairs.

    The pairs are looked at in order, and the first that does not hold gives the hint. Whatever
    goes wrong in the learner's work becomes a hint too: a check never raises.

    Args:
        title: what is checked, as a statement ("The machine has two processors").
        why: a sentence that a pass adds: why it is so, or what it is good for.

    Example::

        @lesson.check("The machine has two processors", "QEMU runs one thread for each.")
        def _():
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
        _show(title, passed=hint is None, more=why if hint is None else hint)

    return decide


def _show(title: str, passed: bool, more: str) -> None:
    from IPython.display import display

    sentence = f"{title}. {more}" if more else title
    text = f"pass: {sentence}" if passed else f"not yet: {sentence}"
    mark, colour = ("✓ pass", COLOURS["namespaces"]) if passed else ("○ not yet", COLOURS["tcg"])
    words = html.escape(sentence)
    box = f"border-left: 4px solid {colour}; padding: 0.3em 0.8em"
    markup = f'<div role="status" style="{box}"><b>{mark}</b> – {words}</div>'
    display({"text/plain": text, "text/html": markup}, raw=True)


def style() -> None:
    """Set the house style for figures: plain, readable, with colours that all can tell apart."""
    import matplotlib as mpl

    mpl.rcParams.update(
        {
            "figure.figsize": (8, 4.2),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": mpl.cycler(color=CYCLE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 12,
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "grid.color": "#dddddd",
            "hatch.linewidth": 0.6,
            "font.size": 11,
            "legend.frameon": False,
        }
    )


def dots(axes, table, value: str = "value", by: str = "rung", horizontal: bool = True) -> None:
    """Draw a bar for each group's median and a dot for every run.

    Args:
        axes: matplotlib axes.
        table: DataFrame with one row a run.
        value: column with the number.
        by: column that names the group; the house colours and hatches go by it.
        horizontal: bars that lie.
    """
    groups = list(dict.fromkeys(table[by]))
    for place, group in enumerate(groups):
        runs = table.loc[table[by] == group, value].dropna()
        look = {
            "color": COLOURS.get(group, CYCLE[place % len(CYCLE)]),
            "hatch": HATCHES.get(group, ""),
            "edgecolor": "white",
        }
        if horizontal:
            axes.barh(place, runs.median(), **look)
            axes.plot(runs, [place] * len(runs), "o", color="black", ms=4, mfc="white")
        else:
            axes.bar(place, runs.median(), **look)
            axes.plot([place] * len(runs), runs, "o", color="black", ms=4, mfc="white")
    if horizontal:
        axes.set_yticks(range(len(groups)), groups)
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
    else:
        axes.set_xticks(range(len(groups)), groups)


def caption(figure, sentence: str, rung: str = "") -> None:
    """Write under a figure what it shows, and which machine and rung it was measured on.

    The sentence is also the figure's description for readers who cannot see it.

    Args:
        figure: matplotlib figure; it is shown.
        sentence: one sentence.
        rung: what produced the numbers (``tcg``, ``docker``, …).
    """
    import io

    import matplotlib.pyplot as plt
    from IPython.display import Markdown, display

    facts = machine.facts()
    source = f"{facts['processor']}, {facts['cores']} cores" + (f"; {rung}" if rung else "")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    plt.close(figure)
    metadata = {"image/png": {"alt": sentence}}
    data = {"image/png": picture.getvalue(), "text/plain": sentence}
    display(data, metadata=metadata, raw=True)
    display(Markdown(f"*{sentence}* Measured on: {source}."))


def link(url: str, text: str | None = None) -> None:
    """Show a link to a server on this machine's loopback that works in the learner's browser.

    Behind JupyterHub or Binder the browser is elsewhere, so the link goes through
    jupyter-server-proxy.
    """
    from IPython.display import Markdown, display

    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    port = url.split(":")[2].split("/")[0]
    path = url.split(port, 1)[1].lstrip("/")
    target = f"{prefix}proxy/{port}/{path}" if prefix else url
    display(Markdown(f"[{text or url}]({target})"))


def data(name: str) -> Path:
    """Return a file of the repository's ``data`` folder."""
    return Path(__file__).parents[1] / "data" / name
