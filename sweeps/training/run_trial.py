"""Runs one trial: trains once under one strategy and audits the result. Uses no Ray, no MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from masksweep.strategies.plan import Plan
from masksweep.sweeps.common.memory import PeakMemory
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.training import batches, setup
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.state import Emit
from masksweep.sweeps.training.step_counts import step_counts

if TYPE_CHECKING:
    from masksweep.strategies.core.audit import Loader
    from masksweep.strategies.core.leak_cause import Cause
    from masksweep.strategies.mask_changes.record import ChangeRecord
    from masksweep.sweeps.training.program import Program
    from masksweep.sweeps.training.snapshot import Snapshot
    from masksweep.sweeps.training.state import Position


def run(
    trial: Trial,
    emit: Emit = lambda report: None,
    checkpoints: Checkpoints | None = None,
    rounds_folder: Folder | None = None,
) -> TrialResult:
    """Runs one trial in this process.

    Call `process.prepare_process` once before, in the same process. A resumed trial ends with the
    same bits as one that was not interrupted. A plan that the strategy refuses is not approximated:
    the result has the status `skipped` and the reason.

    Args:
        trial: The trial.
        emit: Receives the reports on the trial's progress.
        checkpoints: The trial's checkpoints. If one is usable, the trial resumes from the newest,
            and first reports the curve up to there again.
        rounds_folder: Folder for the weights of pruning rounds (see `iterative_pruning`), which
            later trials reuse.

    Raises:
        Invalid: The plan cannot be made.
        Diverged: The mean loss of an epoch is NaN, or exceeds 1000 * max(1, loss before training).
            The curve up to there has been reported.
    """
    from masksweep.sweeps.training import (
        costs,
        evaluation,
        leak_cause,
        lockstep,
        timing,
    )
    from masksweep.sweeps.training.loop import TrainingLoop
    from masksweep.sweeps.training.snapshot import take_snapshot
    from masksweep.sweeps.training.trial_run import TrialRun

    peak, start = PeakMemory(), build_start(trial, rounds_folder)
    if isinstance(start, TrialResult):
        return start
    program = setup.program_for(start)
    compile_seconds_before, before = program.compile_seconds, take_snapshot(start, program)
    gradients = evaluation.gradients(start, program, batches.first_batch(start))
    training = TrialRun(start, emit, checkpoints)
    program.training.assign_first(training.resume(program.training))
    loop = TrainingLoop([training], program)
    loop.run()
    program = loop.program.single_program
    by_finalizing = leak_cause.finalize(program, training.position.found.steps)
    peak_bytes = peak.bytes()

    (validation,), (test,) = loop.scores("validation"), loop.scores("test")
    scores = gradients | validation | test
    scores["speed/compile_s"] = (
        sum(p.compile_seconds for p in loop.programs) - compile_seconds_before
    )
    if peak_bytes is not None:
        scores["memory/peak_bytes"] = peak_bytes
    if trial.train.early_stopping:
        scores["early_stopping/step"] = training.position.found.steps
        scores["early_stopping/best_step"] = training.position.best.step
    records = loop.changes.records if loop.changes else []
    found = start, loop.plan, program, before, training.position, by_finalizing
    result = audited_result(*found, records=records)
    if loop.change_seconds:
        scores["speed/mask_change_ms"] = 1000 * median(loop.change_seconds)
    metrics = {**result.metrics, **scores}
    if trial.compare and start.plan.weights:
        metrics |= lockstep.compare(start, trial.compare)
    if trial.speed.rounds and loop.total:
        metrics |= costs.step_time(start, program, loop.samples)
    return replace(result, metrics=metrics, tags={**result.tags, **timing.noise_tag(metrics)})


def build_start(trial: Trial, rounds_folder: Folder | None) -> TrialStart | TrialResult:
    """Builds the start of a trial, with its final masks.

    Args:
        trial: The trial.
        rounds_folder: Folder for the weights of pruning rounds and of dense starts.

    Returns:
        The start, or a `skipped` result if the strategy refuses the masks.
    """
    from masksweep.sweeps.training import dense_start, iterative_pruning

    start = dense_start.start(trial, rounds_folder)
    if reason := setup.refusal(trial, start.pattern_plan):
        return TrialResult("skipped", reason)
    start = iterative_pruning.with_masks(start, rounds_folder)
    if reason := setup.refusal(trial, start.plan):  # again, now with the final masks
        return TrialResult("skipped", reason)
    return start


def audited_result(
    start: TrialStart,
    plan: Plan,
    program: Program,
    before: Snapshot,
    position: Position,
    by_finalizing: Sequence[Cause],
    loader: Loader | None = None,
    records: Sequence[ChangeRecord] = (),
) -> TrialResult:
    """The result of a trial whose training has ended: audit, costs and the last epoch's metrics.

    Args:
        start: The start of the trial.
        plan: The masks and held values at the end of the training.
        program: The program after the last step.
        before: The model before the first step.
        position: The position at the end.
        by_finalizing: Why held entries moved at the end of the training (see
            `leak_cause.finalize`).
        loader: Loads the saved model; by default a new loader.
        records: The start and the changes of the masks, in order.
    """
    from masksweep.sweeps import results
    from masksweep.sweeps.common import provenance
    from masksweep.sweeps.training import (
        costs,
        evaluation,
        gradient_reach,
        integrity,
        leak_cause,
        mask_course,
        recovery,
        weight_images,
    )
    from masksweep.sweeps.training.trial_run import UNKNOWN_ORDER

    audited, artifacts, sha256 = integrity.audit_trained(
        start, plan, program, before, position.found, loader
    )
    tags, still = {"trial.weights_sha256": sha256}, start.trial.still_reason
    if audited and still:
        tags["integrity.untrained"] = still
    elif audited and start.trial.strategy.role == "control" and not results.leaks(audited):
        audited |= gradient_reach.control_reach(start, plan, program, before)
    if not start.data.deterministic:
        tags["data.order"] = UNKNOWN_ORDER
    causes = [*leak_cause.causes(start, position.found, by_finalizing)]
    causes += integrity.moved_outputs(start, program, before, audited)
    choices = start.trial.running_strategy.choices(plan)
    tags |= {f"strategy.{key}": text for key, text in choices.items()}
    tags |= mask_course.cause_tags(causes, records)
    last_epoch = evaluation.epoch_metrics(start, program, position)
    artifacts["environment.txt"] = provenance.environment_text().encode()
    masks = {w.weight.name: w.mask for w in plan.weights}
    others = recovery.of_masks(start, masks) | costs.cost_metrics(start, plan, program)
    others |= mask_course.metrics(start, records, position.found.steps)
    if records:  # entries that are masked since a change were free to move before it
        audited.pop("integrity/raw_drift", None)
    epoch, total = step_counts(start.trial, start.data.samples)
    changes = [record.step / epoch for record in records[1:]]
    artifacts |= weight_images.draw_violations([*position.curve, last_epoch], changes)
    return TrialResult(
        "ok",
        metrics=last_epoch | audited | others,
        tags=tags,
        artifacts=artifacts | mask_course.artifacts(records, total),
        data=start.data.described(),
        epochs=position.epochs,
    )
