"""What is amiss with trials: of several the first to look at, and its cause."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from masksweep.sweeps.report.results_table import Outcome

REASON = 80
"""The most characters of a failure's reason; the whole is told elsewhere."""


def amiss(outcomes: Sequence[Outcome]) -> str:
    """What is said after the verdict on trials of one strategy; empty where nothing is amiss.

    As `: gradient_mask, random 0.9, seed 2, through decay`. One that says something else than it
    must goes before one that failed.
    """
    for o in outcomes:
        if alarms(o):
            return f": {o.trial.name}"
        must_hold = o.status == "ok" and o.trial.strategy.role == "strategy"
        if must_hold and o.result.metrics.get("integrity/ok", 1) != 1:
            return ", ".join(filter(None, [f": {o.trial.name}", _cause(o)]))
    if still := [o for o in outcomes if inconclusive(o)]:
        return f": no gradient reaches the {unreached(still)} masked entries"
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


def leaks(metrics: Mapping[str, float]) -> bool:
    """Whether something that is to be held was seen to move: a weight, a statistic, an output."""
    also = ("integrity/output_drift", "integrity/frozen_violations")
    return violated(metrics) or any(metrics.get(name) for name in also)


def alarms(outcome: Outcome) -> bool:
    """Whether a control held although it must leak, so that no verdict can be trusted."""
    return _still(outcome) and not inconclusive(outcome)


def inconclusive(outcome: Outcome) -> bool:
    """Whether a control held because no gradient reaches what is masked, so it says nothing."""
    return _still(outcome) and outcome.result.metrics.get("integrity/reached") == 0


def _still(outcome: Outcome) -> bool:
    """Whether it is a control that was audited, and nothing was seen to move."""
    metrics = outcome.result.metrics
    audited = outcome.status == "ok" and "integrity/ok" in metrics
    return audited and outcome.trial.strategy.role == "control" and not leaks(metrics)


def unreached(outcomes: Sequence[Outcome]) -> str:
    """How many masked entries no gradient reaches, as `1,650` or `1,600 to 1,650`."""
    found = [o.result.metrics.get("integrity/unreached", 0) for o in outcomes]
    least, most = (f"{n:,.0f}" for n in (min(found), max(found)))
    return least if least == most else f"{least} to {most}"
