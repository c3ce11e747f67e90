"""One trial: train once under one strategy, audit what it held. No Ray, no MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from masksweep.strategies.base import Plan
from masksweep.sweeps.common.memory import Peak
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.training import setup
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.setup import Start
from masksweep.sweeps.training.state import Emit

if TYPE_CHECKING:
    from masksweep.strategies.core.audit import Loader
    from masksweep.strategies.core.leak_cause import Cause
    from masksweep.sweeps.training.evaluation import Snapshot
    from masksweep.sweeps.training.program import Program
    from masksweep.sweeps.training.state import Position


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
    from masksweep.sweeps.training import evaluation, leak_cause, lockstep, timing
    from masksweep.sweeps.training.loop import Run, TrainingLoop

    peak, start = Peak(), begin(trial, shelf)
    if isinstance(start, TrialResult):
        return start
    program = setup.program_for(start)
    compiled, before = program.compile_seconds, evaluation.snapshot(start, program)
    first = evaluation.gradients(start, program, setup.first_batch(start))
    training = Run(start, emit, checkpoints)
    program.training.put_first(training.resume(program.training))
    loop = TrainingLoop([training], program)
    loop.run()
    program = loop.program.one
    by_finalizing = leak_cause.finalize(program)
    largest = peak.bytes()

    (validation,), (test,) = loop.scores("validation"), loop.scores("test")
    found = first | validation | test
    found["speed/compile_s"] = sum(p.compile_seconds for p in loop.programs) - compiled
    if largest is not None:
        found["memory/peak_bytes"] = largest
    result = ended(start, loop.plan, program, before, training.at, by_finalizing)
    metrics = {**result.metrics, **found}
    if trial.train.switch_at:
        metrics.pop("integrity/raw_drift", None)  # before the switch they were to move
    if trial.compare and start.plan.weights:
        metrics |= lockstep.compare(start, trial.compare)
    if trial.speed.rounds:
        metrics |= evaluation.step_time(start, program, (loop.x, loop.y, loop.order))
    return replace(result, metrics=metrics, tags={**result.tags, **timing.tags(metrics)})


def begin(trial: Trial, shelf: Folder | None) -> Start | TrialResult:
    """What the trial starts from, with its masks; its result where its strategy refuses them."""
    from masksweep.sweeps.training import iterative_pruning

    start = setup.start(trial)
    if reason := setup.refusal(trial, start.plan):
        return TrialResult("skipped", reason)
    start = iterative_pruning.with_masks(start, shelf)
    if reason := setup.refusal(trial, start.plan):  # now that the masks are known
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
    from masksweep.sweeps import results
    from masksweep.sweeps.common import provenance
    from masksweep.sweeps.training import evaluation, gradient_reach, leak_cause, weight_images

    integrity, artifacts, sha256 = evaluation.integrity(
        start, plan, program, before, at.found, loader
    )
    if integrity and start.trial.strategy.role == "control" and not results.leaks(integrity):
        integrity |= gradient_reach.of_control(start, plan, program, before)
    tags = {"trial.weights_sha256": sha256}
    causes = [*leak_cause.causes(start, at.found, by_finalizing)]
    causes += evaluation.moved_outputs(start, program, before, integrity)
    if causes:
        tags["integrity.through"] = ", ".join(causes)
    last = evaluation.epoch(start, program, at)
    artifacts["environment.txt"] = provenance.describe().encode()
    return TrialResult(
        "ok",
        metrics=last | integrity | evaluation.costs(start, program),
        tags=tags,
        artifacts=artifacts | weight_images.of_time([*at.curve, last]),
        data=start.data.described(),
        epochs=at.epochs,
    )
