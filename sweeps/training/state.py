"""Progress of a training, and the trial with its callbacks that `pack.run` takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import Diverged, Report
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.early_stopping import BestEpoch
from masksweep.sweeps.training.steps import Progress

Emit = Callable[[Report], None]
"""Receives the reports of a trial."""


@dataclass(frozen=True)
class PackMember:
    """One of the trials that run together, with its own reports and checkpoints."""

    trial: Trial
    emit: Emit
    checkpoints: Checkpoints


CHUNK_SECONDS = 2.0
"""Approximate duration of one call of the compiled loop; a report follows each call."""

DIVERGENCE_FACTOR = 1000.0
"""A training ends early when its mean loss exceeds this factor times max(1, initial loss)."""


@dataclass
class Position:
    """Progress of a training and its sums so far. It is saved in checkpoints."""

    epochs: int = 0
    """Number of epochs that have ended."""
    found: Progress = field(default_factory=Progress)
    """Progress over all steps so far."""
    part: Progress = field(default_factory=Progress)
    """Progress over the steps of the current epoch."""
    before: float | None = None
    """Loss of the first batch, before its update; None until a step was done."""
    curve: list[Mapping[str, float]] = field(default_factory=list)
    """Metrics of each epoch that has ended."""
    best: BestEpoch = field(default_factory=BestEpoch)
    """The best epoch so far, for `train.early_stopping`."""
    changes: list[Mapping[str, Any]] = field(default_factory=list)
    """The changes of the masks up to the newest checkpoint, as plain values; see `ChangeRecord`."""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Position:
        """The position that a checkpoint holds as plain values (`dataclasses.asdict`)."""
        parts = {key: Progress(**plain[key]) for key in ("found", "part")}
        return cls(**{**plain, **parts, "best": BestEpoch(**plain["best"])})

    def add(self, new: Progress, requested: int) -> None:
        """Adds the progress of the newest chunk of steps.

        Args:
            new: Progress over the steps that were done.
            requested: Number of steps that were to be done. Fewer were done if the loss passed the
                limit.

        Raises:
            Diverged: The mean loss of the epoch is NaN or above `limit`.
        """
        self.found, self.part = self.found + new, self.part + new
        if self.before is None:
            self.before = new.loss
        if new.steps < requested or not self.part.within(self.limit):
            loss = self.part.loss / self.part.steps
            loss_text = f"{loss:.2g}" if np.isfinite(loss) else f"is {loss}"
            before_text = f", {self.before:.2g} before training" if np.isfinite(loss) else ""
            raise Diverged(
                f"diverged: train/loss {loss_text} at step {self.found.steps}{before_text}"
            )

    @property
    def limit(self) -> float:
        """Largest allowed mean loss of an epoch."""
        if self.before is None:
            return sys.float_info.max
        return min(DIVERGENCE_FACTOR * max(1.0, self.before), sys.float_info.max)
