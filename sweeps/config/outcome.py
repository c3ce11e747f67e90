"""A trial and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import TrialResult

Status = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """One trial and how it ended."""

    trial: Trial
    variant: str
    """What tells it apart from trials of the same strategy and pattern."""
    status: Status
    result: TrialResult = field(default_factory=lambda: TrialResult("ok"))
    reason: str = ""

    @property
    def name(self) -> str:
        return ", ".join(filter(None, [self.trial.name, self.variant]))
