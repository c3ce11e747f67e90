"""How a strategy looks: the same in every plot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which the colour-blind tell apart."""
DASHES = ("-", "--", ":", "-.")
MARKERS = "os^Dv<>Pp"


def look(label: str, among: Sequence[str]) -> dict[str, Any]:
    """Colour, dash and marker of a strategy, as matplotlib takes them.

    A strategy's colour does not hang on what else is drawn; `among` tells its variants apart, and
    what is no strategy.
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


def _base(label: str) -> str:
    return re.split(r"\W", label, maxsplit=1)[0]
