"""The result of a trial, the reports on its progress, and the exceptions that end it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple


@dataclass(frozen=True)
class Report:
    """Progress of a trial. One is sent at the end of each chunk of training steps."""

    steps: int
    """Training steps done so far."""
    total: int
    """Training steps of the whole trial."""
    epoch: int
    """Number of the epoch that the steps belong to, counted from 1."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of this epoch, if it has ended. Those of the last epoch are in the trial's result."""
    note: str = ""
    """A message for the user, such as that the trial was resumed."""


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial that ran to its end, or was skipped."""

    status: Literal["ok", "skipped"]
    reason: str = ""
    """Why the trial was skipped; empty if it was not."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Final metrics by name, such as `test/accuracy`."""
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    """Content of each file by file name."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Name, digest and shapes of the training data."""
    epochs: int = 0
    """Number of epochs that were trained; a last, incomplete one counts."""


@dataclass(frozen=True)
class StoredResult:
    """The result of a trial that an earlier run of the sweep has finished."""

    result: TrialResult
    """The result without its artifacts, which are not loaded."""
    code: str
    """Version of the code that ran the trial."""


class PreflightAnswer(NamedTuple):
    """What the preflight finds out about a trial's plan before the trial runs."""

    refusal: str = ""
    """Why the trial's strategy cannot hold the plan; empty if it can."""
    cut_off: str = ""
    """Units and inputs that the masks leave without any connection; empty if there are none."""
    chosen: str = ""
    """What the strategy chooses for the masks, as `format: block`; empty if it chooses nothing."""


FailureCause = Literal["raised", "diverged", "lost", "timeout", "memory", "apart"]
"""Why a trial ended without a result."""


class TrialFailure(RuntimeError):
    """A failed trial. `cause` is the kind of the failure, and the message is the reason."""

    cause: FailureCause


class Diverged(TrialFailure):
    """The loss is NaN or infinite, or far above the loss before training."""

    cause = "diverged"


class MustRunAlone(TrialFailure):
    """The trials cannot run side by side in one program. Each of them can still run alone."""

    cause = "apart"


def violated(metrics: Mapping[str, float]) -> bool:
    """Whether any masked entry differed from its held value at an audited step or at the end.

    Args:
        metrics: Metrics of a trial by name.
    """
    return any(metrics.get(f"integrity/{name}") for name in ("violations", "peak_violations"))


def unproven_reason(metrics: Mapping[str, float]) -> str:
    """Why the verdict of a trial is not `ok` although no masked entry was violated.

    Args:
        metrics: Metrics of a trial by name.
    """
    if metrics.get("integrity/frozen_violations"):
        return "weights or statistics outside of trainable moved"
    if metrics.get("integrity/output_drift"):
        return "a held output moved"
    nothing_moved = metrics.get("integrity/moved") == 0
    return "nothing moved" if nothing_moved else "what was saved differs"


def leaks(metrics: Mapping[str, float]) -> bool:
    """Whether a value that must be held was seen to move: a weight, a statistic or an output.

    Args:
        metrics: Metrics of a trial by name.
    """
    other_leaks = ("integrity/output_drift", "integrity/frozen_violations")
    return violated(metrics) or any(metrics.get(name) for name in other_leaks)


CURVE_PREFIXES = ("train/", "validation/", "test/", "audit/")
"""Prefixes of the metrics that have a value for each epoch, and so make a curve."""
