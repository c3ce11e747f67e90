"""Draws the course of the masks of a trial: densities, overlaps, and what the masks found."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from masksweep.strategies.mask_changes.record import ChangeRecord
from masksweep.sweeps.training.weight_images import SHOWN_CHANGES

VIOLATED_COLOUR = "#D55E00"
SHOWN_WEIGHTS = 10
"""Largest number of weights that have a line of their own; the others share one."""
MEASURE_STYLES = (
    {"color": "#0072B2", "linewidth": 1.8},
    {"color": "#009E73", "linewidth": 1.8, "linestyle": "--"},
)
"""Of precision and recall."""


def draw(records: Sequence[ChangeRecord], steps: int) -> dict[str, bytes]:
    """The image `schedule.png`: densities over the steps, and the overlap at each change.

    If the records have measures, such as `recovery/recall`, a third panel shows them. A change is a
    vertical line, unless there are more than `SHOWN_CHANGES`. If a masked entry moved before the
    next change, its line is orange and always there.

    Args:
        records: The start and the changes of the masks, in order.
        steps: Number of training steps.

    Returns:
        A PNG image by file name; empty without a change.
    """
    if len(records) < 2:
        return {}
    from matplotlib.figure import Figure

    measured = list(records[0].measures)
    panels = 3 if measured else 2
    figure = Figure(figsize=(4.5 * panels, 3.4), layout="constrained")
    densities, overlaps, *others = axes = figure.subplots(1, panels)
    edges = [record.step for record in records] + [steps]
    names = list(records[0].weights)
    for name in names[:SHOWN_WEIGHTS] if len(names) <= SHOWN_WEIGHTS else []:
        values = [r.weights[name].kept / max(1, r.weights[name].size) for r in records]
        densities.step(edges, [*values, values[-1]], where="post", label=name, linewidth=1.2)
    whole = [record.density for record in records]
    style = {"color": "black", "linewidth": 1.8, "label": "all together"}
    densities.step(edges, [*whole, whole[-1]], where="post", **style)
    changes = records[1:]
    for name in names:
        points = [(r.step, r.weights[name].overlap) for r in changes]
        marker = "o" if len(changes) <= SHOWN_CHANGES else ""
        overlaps.plot(*zip(*points, strict=True), marker=marker, markersize=3, linewidth=0.8)
    for axis in others:
        for name, style in zip(measured, MEASURE_STYLES, strict=False):
            values = [record.measures[name] for record in records]
            axis.step(edges, [*values, values[-1]], where="post", label=name, **style)
        axis.set_title("recovery of the teacher's connections", fontsize=10, loc="left")
    for axis in axes:
        _frame(axis, changes, steps)
    violated = sum(record.violations > 0 for record in changes)
    verdict = f"entries moved after {violated} of {len(changes)} changes" if violated else ""
    shares = [w.kept / max(1, w.size) for record in records for w in record.weights.values()]
    densities.set_ylim(0, min(1.03, 1.3 * max(shares)))
    densities.set_title("share of kept entries", fontsize=10, loc="left")
    overlaps.set_title("overlap with the masks before (Jaccard)", fontsize=10, loc="left")
    if verdict:
        figure.suptitle(verdict, color=VIOLATED_COLOUR, fontsize=10)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return {"schedule.png": buffer.getvalue()}


def _frame(axis: Any, changes: Sequence[ChangeRecord], steps: int) -> None:
    """Draws the axes of a panel, and a line at each change that is shown."""
    from matplotlib.ticker import MaxNLocator

    for record in changes:
        if record.violations or len(changes) <= SHOWN_CHANGES:
            colour = VIOLATED_COLOUR if record.violations else "0.85"
            axis.axvline(record.step, color=colour, linewidth=0.7, zorder=0)
    axis.set_xlim(0, steps)
    axis.set_ylim(0, 1.03)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.set_xlabel("training steps")
    axis.spines[["top", "right"]].set_visible(False)
