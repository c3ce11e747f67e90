"""How far a training is, and whom it is reported to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import Diverged, Report
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.steps import Progress

Emit = Callable[[Report], None]


@dataclass(frozen=True)
class Member:
    """A trial with what is its own, where several are run together."""

    trial: Trial
    emit: Emit
    checkpoints: Checkpoints


CHUNK_SECONDS = 2.0

DIVERGED = 1000.0
"""A training ends when its loss is this many times that before training, or 1 if that is more."""


@dataclass
class Position:
    """How far a training is, and what it has found."""

    epochs: int = 0
    """Whole epochs that were done."""
    found: Progress = field(default_factory=Progress)
    """Of all steps."""
    part: Progress = field(default_factory=Progress)
    """Of the steps of this epoch."""
    before: float | None = None
    """Loss before training, on the first batch."""
    curve: list[Mapping[str, float]] = field(default_factory=list)
    """Metrics of the epochs done."""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Position:
        parts = {key: Progress(**plain[key]) for key in ("found", "part")}
        return cls(**{**plain, **parts})

    def take(self, new: Progress, asked: int) -> None:
        """Go on by what came of so many steps. Raises `Diverged`."""
        self.found, self.part = self.found + new, self.part + new
        if self.before is None:
            self.before = new.loss
        if new.steps < asked or not self.part.within(self.limit):
            loss = self.part.loss / self.part.steps
            shown = f"{loss:.2g}" if np.isfinite(loss) else f"is {loss}"
            since = f", {self.before:.2g} before training" if np.isfinite(loss) else ""
            raise Diverged(f"diverged: train/loss {shown} at step {self.found.steps}{since}")

    @property
    def limit(self) -> float:
        """What the mean loss of an epoch may be."""
        if self.before is None:
            return sys.float_info.max
        return min(DIVERGED * max(1.0, self.before), sys.float_info.max)
