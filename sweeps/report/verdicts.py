"""What is amiss with trials: of several the first to look at, and its cause."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from masksweep.sweeps.results import leaks, unproven, violated

if TYPE_CHECKING:
    from masksweep.sweeps.config.outcome import Outcome

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
