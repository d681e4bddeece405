"""Figures in the style of the house, with their sentence and their machine."""

from __future__ import annotations

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
