"""One trial: train once under one strategy, audit what it held. No Ray, no MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from strategies.base import Plan
from sweeps import prepare
from sweeps.checkpoint import Checkpoints
from sweeps.config import Trial
from sweeps.folder import Folder
from sweeps.memory import Peak
from sweeps.prepare import Start

if TYPE_CHECKING:
    from strategies.audit import Loader
    from strategies.cause import Cause
    from sweeps.course import Position
    from sweeps.measure import Snapshot
    from sweeps.program import Program


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


@dataclass(frozen=True)
class Member:
    """A trial with what is its own, where several are run together."""

    trial: Trial
    emit: Emit
    checkpoints: Checkpoints


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
    from sweeps import measure, path, speed, through
    from sweeps.course import Course

    peak, start = Peak(), begin(trial, shelf)
    if isinstance(start, TrialResult):
        return start
    program = prepare.program_for(start)
    compiled, before = program.compile_seconds, measure.snapshot(start, program)
    course = Course(start, program, emit, checkpoints)
    first = measure.gradients(start, program, course.next_batch())
    course.run()
    program = course.program
    by_finalizing = through.finalize(program)
    largest = peak.bytes()

    found = first | measure.scores(start, program, "validation")
    found |= measure.scores(start, program, "test")
    found["speed/compile_s"] = sum(p.compile_seconds for p in course.programs) - compiled
    if largest is not None:
        found["memory/peak_bytes"] = largest
    result = ended(start, course.plan, program, before, course.at, by_finalizing)
    metrics = {**result.metrics, **found}
    if trial.train.switch_at:
        metrics.pop("integrity/raw_drift", None)  # before the switch they were to move
    if trial.compare and start.plan.weights:
        metrics |= path.compare(start, trial.compare)
    if trial.speed.rounds:
        metrics |= measure.step_time(start, program, (course.x, course.y, course.order))
    return replace(result, metrics=metrics, tags={**result.tags, **speed.tags(metrics)})


def begin(trial: Trial, shelf: Folder | None) -> Start | TrialResult:
    """What the trial starts from, with its masks; its result where its strategy refuses them."""
    from sweeps import rounds

    start = prepare.start(trial)
    if reason := prepare.refusal(trial, start.plan):
        return TrialResult("skipped", reason)
    start = rounds.with_masks(start, shelf)
    if reason := prepare.refusal(trial, start.plan):  # now that the masks are known
        return TrialResult("skipped", reason)
    return start


def ended(
    start: Start,
    plan: Plan,
    program: Program,
    before: Snapshot,
    at: Position,
    by_finalizing: Sequence[Cause],
    loader: Loader | None = None,
) -> TrialResult:
    """What a training that has ended came to: its audit, its costs, its last epoch.

    `plan` is what is held at the end, `before` the program's model before the first step.
    """
    from sweeps import amiss, environment, measure, pictures, reach, through

    integrity, artifacts, sha256 = measure.integrity(start, plan, program, before, at.found, loader)
    if integrity and start.trial.strategy.role == "control" and not amiss.leaks(integrity):
        integrity |= reach.of_control(start, plan, program, before)
    tags = {"trial.weights_sha256": sha256}
    causes = [*through.causes(start, at.found, by_finalizing)]
    causes += measure.moved_outputs(start, program, before, integrity)
    if causes:
        tags["integrity.through"] = ", ".join(causes)
    last = measure.epoch(start, program, at)
    artifacts["environment.txt"] = environment.describe().encode()
    return TrialResult(
        "ok",
        metrics=last | integrity | measure.costs(start, program),
        tags=tags,
        artifacts=artifacts | pictures.of_time([*at.curve, last]),
        data=start.data.described(),
        epochs=at.epochs,
    )
