"""Finds the trial that shows why a verdict is bad, and its cause."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from masksweep.sweeps.results import leaks, unproven_reason, violated

if TYPE_CHECKING:
    from masksweep.sweeps.config.outcome import Outcome

MAX_REASON_CHARACTERS = 80
"""Largest number of characters of a failure's reason. Another table has the whole reason."""


def describe_problem(outcomes: Sequence[Outcome]) -> str:
    """Returns the text that follows the verdict on trials of one strategy.

    The text names the first trial with a wrong verdict: a control that holds, or a strategy that
    does not. If there is none, it names the first trial that failed.

    Args:
        outcomes: Trials of one strategy, pattern and variant.

    Returns:
        For example `: gradient_mask, random 0.9, seed 2, through decay`. Empty if all is well.
    """
    for o in outcomes:
        if control_held(o):
            return f": {o.trial.name}"
        must_hold = o.status == "ok" and o.trial.strategy.role == "strategy"
        if must_hold and o.result.metrics.get("integrity/ok", 1) != 1:
            return ", ".join(filter(None, [f": {o.trial.name}", _cause(o)]))
    unreachable = [o for o in outcomes if is_inconclusive(o)]
    if still := next((reason for o in unreachable if (reason := o.trial.still_reason)), ""):
        return f": nothing was trained ({still})"
    if unreachable:
        return f": no gradient reaches the {count_unreached(unreachable)} masked entries"
    for o in outcomes:
        if o.status == "failed":
            reason = textwrap.shorten(o.reason, MAX_REASON_CHARACTERS, placeholder=" ...")
            return f"; failed: {o.trial.name}, {reason}"
    return ""


def _cause(outcome: Outcome) -> str:
    if through := outcome.result.tags.get("integrity.through"):
        return f"through {through}"
    return "" if violated(outcome.result.metrics) else unproven_reason(outcome.result.metrics)


def control_held(outcome: Outcome) -> bool:
    """Returns whether a control held although it must leak. Then no verdict can be trusted."""
    return _is_unmoved_control(outcome) and not is_inconclusive(outcome)


def is_inconclusive(outcome: Outcome) -> bool:
    """Returns whether a control held only because nothing could move its masked entries.

    Either no gradient reaches any of them, or nothing was trained.
    """
    unreached = outcome.result.metrics.get("integrity/reached") == 0
    return _is_unmoved_control(outcome) and (unreached or bool(outcome.trial.still_reason))


def _is_unmoved_control(outcome: Outcome) -> bool:
    """Returns whether the trial is an audited control in which no held value moved."""
    metrics = outcome.result.metrics
    audited = outcome.status == "ok" and "integrity/ok" in metrics
    return audited and outcome.trial.strategy.role == "control" and not leaks(metrics)


def count_unreached(outcomes: Sequence[Outcome]) -> str:
    """Returns how many masked entries no gradient reaches, as `1,650` or `1,600 to 1,650`."""
    counts = [o.result.metrics.get("integrity/unreached", 0) for o in outcomes]
    least, most = (f"{n:,.0f}" for n in (min(counts), max(counts)))
    return least if least == most else f"{least} to {most}"
