"""Colours, dashes and markers of strategies, the same in all plots."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colours of Okabe and Ito, which colour-blind people can distinguish."""
DASHES = ("-", "--", ":", "-.")
MARKERS = "os^Dv<>Pp"
DENSE_MARKERS = "*X1234"


def line_style(label: str, among: Sequence[str]) -> dict[str, Any]:
    """Returns colour, dash and marker of a strategy.

    A strategy has the same colour in all plots, whatever else is drawn. Variants of it differ in
    dash and marker.

    Args:
        label: Label of the strategy, or of another method.
        among: All labels of the plot, `label` included. Its order decides the style of variants
            and of labels that are no strategies.

    Returns:
        Keyword arguments for `matplotlib.axes.Axes.plot`.
    """
    from masksweep.strategies.registry import STRATEGIES

    names = list(dict.fromkeys([*STRATEGIES, *map(_base, among)]))
    base = _base(label)
    number = names.index(base)
    variant = [other for other in among if _base(other) == base].index(label)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[(number // len(COLOURS) + variant) % len(DASHES)],
        "marker": MARKERS[(number + variant) % len(MARKERS)],
    }


def method_style(label: str, among: Sequence[str]) -> dict[str, Any]:
    """Returns colour, dash and marker by the place of a label among all labels of a plot."""
    number = list(among).index(label)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def dense_style(label: str, among: Sequence[str]) -> dict[str, Any]:
    """Returns the grey marker of a dense control, by its place among those of a plot."""
    marker = DENSE_MARKERS[list(among).index(label) % len(DENSE_MARKERS)]
    return {"color": "0.3", "marker": marker, "linestyle": ""}


def _base(label: str) -> str:
    return re.split(r"\W", label, maxsplit=1)[0]
