"""Runs one trial: trains once under one strategy and audits the result. Uses no Ray, no MLflow."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from masksweep.sweeps.common.memory import PeakMemory
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.training import batches, setup
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.state import Emit, Position

if TYPE_CHECKING:
    from masksweep.sweeps.training.loop import TrainingLoop


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
        Diverged: The mean loss of an epoch is NaN, or exceeds 1000 * max(1, loss before training),
            or the outputs are NaN at the end. The curve up to there has been reported.
    """
    from masksweep.sweeps.training import costs, evaluation, leak_cause, lockstep, timing
    from masksweep.sweeps.training.loop import TrainingLoop
    from masksweep.sweeps.training.snapshot import take_snapshot
    from masksweep.sweeps.training.trial_result import EndedTraining, audited_result
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

    scores = gradients | _scores(trial, loop, training.position)
    scores["speed/compile_s"] -= compile_seconds_before
    if peak_bytes is not None:
        scores["memory/peak_bytes"] = peak_bytes
    records = loop.changes.records if loop.changes else []
    ended = EndedTraining(
        start, loop.plan, program, before, training.position, by_finalizing, records
    )
    result = audited_result(ended)
    metrics = {**result.metrics, **scores}
    if trial.compare and start.plan.weights:
        metrics |= lockstep.compare(start, trial.compare)
    if trial.speed.rounds and loop.total:
        metrics |= costs.step_time(start, program, loop.samples)
    return replace(result, metrics=metrics, tags={**result.tags, **timing.noise_tag(metrics)})


def _scores(trial: Trial, loop: TrainingLoop, position: Position) -> dict[str, float]:
    """Returns the scores of the trained model, what its training took, and where it stopped."""
    (validation,), (test,) = loop.scores("validation"), loop.scores("test")
    scores = {**validation, **test}
    scores["speed/compile_s"] = sum(p.compile_seconds for p in loop.programs)
    if loop.change_seconds:
        scores["speed/mask_change_ms"] = 1000 * median(loop.change_seconds)
    if trial.train.early_stopping:
        scores["early_stopping/step"] = position.found.steps
        scores["early_stopping/best_step"] = position.best.step
    return scores


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
