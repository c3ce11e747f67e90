"""Which training steps to do, and what came of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

NEVER = 2**62


@dataclass(frozen=True)
class Steps:
    """Which steps of a training to do, and which of them to audit."""

    done: int
    """Steps that were done before. Step `s` (from 0) takes row `s % epoch` of the order."""
    count: int
    audit_every: int = NEVER
    """Violations are counted at each step whose number (from 1) is a multiple of it."""
    last: int = NEVER
    """Number of the last step of the training, at which violations are counted too."""


@dataclass(frozen=True)
class LossLimit:
    """When a trial ends before its last step, however its steps are cut up."""

    before: float = 0.0
    """Sum of the losses of the epoch's steps that were done before."""
    limit: float = inf
    """What the mean loss of the epoch may be; infinity lets anything pass."""
    active: bool = True
    """Whether it trains at all. One that has ended keeps its lane and makes no progress."""


@dataclass
class Progress:
    """What came of a number of training steps."""

    steps: int = 0
    loss: float = 0.0
    """Sum over the steps of the batch's mean loss."""
    score: float = 0.0
    """Sum over the steps of the batch's accuracy, or mean squared error."""
    peak_violations: int = 0
    first_violation_step: int = NEVER
    peak_drift: float = 0.0

    @property
    def first(self) -> int | None:
        """The number of the first step with a violation, from 1; None if there was none."""
        return None if self.first_violation_step == NEVER else self.first_violation_step

    def within(self, limit: float) -> bool:
        """Whether the mean loss is a number and at most `limit`; infinity lets anything pass."""
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
    """Whether the mean of `steps` losses is a number and at most the limit."""
    return (loss <= limit * steps) | (limit == inf)
