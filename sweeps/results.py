"""What comes out of a trial, and what is told of it on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple


@dataclass(frozen=True)
class Report:
    """How far a trial is, at the end of each chunk of steps."""

    steps: int
    """Training steps that were done."""
    total: int
    """Training steps in all."""
    epoch: int
    """The epoch that these are part of, from 1."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of this epoch if it has ended; the last epoch's are in the trial's result."""
    note: str = ""
    """Something that a person should know."""


@dataclass(frozen=True)
class TrialResult:
    """What one trial found."""

    status: Literal["ok", "skipped"]
    reason: str = ""
    """Why it was skipped."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Final metrics by their names in the house."""
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    """Content by file name."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Name, digest and shapes of the training data."""
    epochs: int = 0


@dataclass(frozen=True)
class Found:
    """A trial that has finished before."""

    result: TrialResult
    """Without artifacts."""
    code: str
    """The version of the code that ran it."""


class Answer(NamedTuple):
    """What is known of a trial's plan before it runs."""

    refusal: str = ""
    """Why its strategy cannot hold it; empty if it can."""
    cut_off: str = ""
    """The units and inputs that its masks leave without a connection; empty if there are none."""


FailureCause = Literal["raised", "diverged", "lost", "timeout", "memory", "apart"]
"""Why a trial ended without a result."""


class TrialFailure(RuntimeError):
    """An exception that knows the cause of the failure; its message is the reason."""

    cause: FailureCause


class Diverged(TrialFailure):
    """The loss is no number any more, or far above what it was before training."""

    cause = "diverged"


class Apart(TrialFailure):
    """Why trials cannot be run side by side, where each can be run alone."""

    cause = "apart"


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


CURVES = ("train/", "validation/", "test/", "audit/")
