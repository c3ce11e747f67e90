"""One trial: train once under one strategy, audit what it held. No Ray, no MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sweeps import prepare
from sweeps.checkpoint import Checkpoints
from sweeps.config import Trial
from sweeps.folder import Folder
from sweeps.memory import Peak


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


Emit = Callable[[Report], None]


class Diverged(RuntimeError):
    """The loss is no number any more, or far above what it was before training."""

    cause = "diverged"


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


def run(
    trial: Trial,
    emit: Emit = lambda report: None,
    checkpoints: Checkpoints | None = None,
    shelf: Folder | None = None,
) -> TrialResult:
    """Run one trial in this process, for which `prepare.prepare_process` was called.

    A pattern that goes by trainings has them done first; what they came to is kept on the `shelf`
    for the next trial. With `checkpoints` it goes on from the newest usable one, to the same bits;
    the curve up to there is reported once more, first.

    A plan that the strategy refuses is not approximated: the result is `skipped`, with the reason.
    Raises `Invalid` where the plan cannot be made, and `Diverged` where the loss does not stay a
    number or rises to 1000 times what it was before training (or 1, if that is more); the curve up
    to there was reported.
    """
    from sweeps import environment, measure, path, rounds, through
    from sweeps.course import Course

    peak, start = Peak(), prepare.start(trial)
    if reason := prepare.refusal(trial, start.plan):
        return TrialResult("skipped", reason)
    start = rounds.with_masks(start, shelf)
    if reason := prepare.refusal(trial, start.plan):  # now that the masks are known
        return TrialResult("skipped", reason)
    program = prepare.program_for(start)
    compiled, before = program.compile_seconds, measure.snapshot(start, program)
    course = Course(start, program, emit, checkpoints)
    first = measure.gradients(start, program, course.next_batch())
    course.run()
    program, ended = course.program, replace(start, plan=course.plan)
    by_finalizing = through.finalize(program)
    largest = peak.bytes()

    integrity, artifacts, sha256 = measure.integrity(ended, program, before, course.at.found)
    metrics = measure.epoch(start, program, course.at.part) | measure.scores(start, program, "test")
    metrics |= first | integrity | measure.costs(start, program)
    metrics["speed/compile_s"] = sum(p.compile_seconds for p in course.programs) - compiled
    if trial.train.switch_at:
        metrics.pop("integrity/raw_drift", None)  # before the switch they were to move
    tags = {"trial.weights_sha256": sha256}
    if causes := through.causes(start, course.at.found, by_finalizing):
        tags["integrity.through"] = ", ".join(causes)
    if trial.compare and start.plan.weights:
        metrics |= path.compare(start, trial.compare)
    if trial.speed.rounds:
        metrics |= measure.step_time(start, program, (course.x, course.y, course.order))
    if largest is not None:
        metrics["memory/peak_bytes"] = largest
    return TrialResult(
        "ok",
        metrics=metrics,
        tags=tags,
        artifacts=artifacts | {"environment.txt": environment.describe().encode()},
        data=start.data.described(),
        epochs=course.at.epochs,
    )
