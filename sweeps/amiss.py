"""What is amiss with trials: of several the first to look at, and its cause."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.report import Outcome

REASON = 80
"""The most characters of a failure's reason; the whole is told elsewhere."""


def amiss(outcomes: Sequence[Outcome]) -> str:
    """What is said after the verdict on trials of one strategy; empty where nothing is amiss.

    As `: gradient_mask, random 0.9, seed 2, through decay`. One that says something else than it
    must goes before one that failed.
    """
    for o in outcomes:
        must = float(o.trial.strategy.role == "strategy")
        if o.status == "ok" and o.result.metrics.get("integrity/ok", must) != must:
            return ", ".join(filter(None, [f": {o.trial.name}", _cause(o) if must else ""]))
    for o in outcomes:
        if o.status == "failed":
            reason = textwrap.shorten(o.reason, REASON, placeholder=" ...")
            return f"; failed: {o.trial.name}, {reason}"
    return ""


def _cause(outcome: Outcome) -> str:
    if through := outcome.result.tags.get("integrity.through"):
        return f"through {through}"
    return "" if violated(outcome.result.metrics) else unproven(outcome.result.metrics)


def violated(metrics: Mapping[str, float]) -> bool:
    """Whether a weight that is to be held differed at any audited step, or at the end."""
    return any(metrics.get(f"integrity/{name}") for name in ("violations", "peak_violations"))


def unproven(metrics: Mapping[str, float]) -> str:
    """Why a trial proves nothing in which no weight was violated."""
    if metrics.get("integrity/frozen_violations"):
        return "weights or statistics outside of trainable moved"
    if metrics.get("integrity/output_drift"):
        return "a held output moved"
    still = metrics.get("integrity/moved") == 0
    return "nothing moved" if still else "what was saved differs"
