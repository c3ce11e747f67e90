"""Which training steps to run, and the sums that these steps return."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

NEVER = 2**62
"""A step number that no training reaches."""


@dataclass(frozen=True)
class Steps:
    """Which steps of a training to run next, and which of them to audit."""

    done: int
    """Steps that were done before. Step `s` (from 0) trains on row `s % rows` of the order."""
    count: int
    """Number of steps to run."""
    audit_every: int = NEVER
    """Violations are counted after each step whose number (from 1) is a multiple of this."""
    last: int = NEVER
    """Number of the training's last step (from 1); violations are counted after it too."""
    epoch: int | None = None
    """Number of steps of an epoch; None if the order has them all."""


@dataclass(frozen=True)
class LossLimit:
    """The loss at which a trial ends early. The chunks that its steps are run in do not matter."""

    before: float = 0.0
    """Sum of the losses of the steps of this epoch that were done before."""
    limit: float = inf
    """Largest allowed mean loss of the epoch; with infinity every loss is allowed, NaN too."""
    active: bool = True
    """Whether the trial trains. A trial that has ended keeps its lane, but makes no progress."""


@dataclass
class Progress:
    """Sums and largest values over a number of training steps."""

    steps: int = 0
    """Number of steps."""
    loss: float = 0.0
    """Sum of the batches' mean losses."""
    score: float = 0.0
    """Sum of the batches' accuracies (classification) or mean squared errors (regression)."""
    peak_violations: int = 0
    """Most violations at any audited step."""
    first_violation_step: int = NEVER
    """Number (from 1) of the first audited step with a violation; `NEVER` if there was none."""
    peak_drift: float = 0.0
    """Largest distance of a masked entry from its held value at any audited step."""

    @property
    def first(self) -> int | None:
        """Number (from 1) of the first audited step with a violation; None if there was none."""
        return None if self.first_violation_step == NEVER else self.first_violation_step

    def within(self, limit: float) -> bool:
        """Whether the mean loss is at most `limit`; see the function `within`."""
        return bool(within(self.loss, float(self.steps), limit))

    def __add__(self, other: Progress) -> Progress:
        return Progress(
            self.steps + other.steps,
            self.loss + other.loss,
            self.score + other.score,
            max(self.peak_violations, other.peak_violations),
            min(self.first_violation_step, other.first_violation_step),
            max(self.peak_drift, other.peak_drift),
        )


def within(loss: Any, steps: Any, limit: Any) -> Any:
    """Whether the mean loss is not NaN and at most the limit.

    Works on numbers and on tensors.

    Args:
        loss: Sum of the losses of the steps.
        steps: Number of steps, as a floating point number.
        limit: Largest allowed mean. With infinity every loss is allowed, NaN too.
    """
    return (loss <= limit * steps) | (limit == inf)
