"""A trial with its status and result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import TrialResult

Status = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """One trial, how it ended, and its result."""

    trial: Trial
    variant: str
    """Settings that distinguish the trial from others of the same strategy and pattern."""
    status: Status
    result: TrialResult = field(default_factory=lambda: TrialResult("ok"))
    reason: str = ""
    """Why the trial failed or was skipped."""

    @property
    def name(self) -> str:
        return ", ".join(filter(None, [self.trial.name, self.variant]))
