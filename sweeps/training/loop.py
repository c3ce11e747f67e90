"""The training loop of one trial, or of several side by side.

It trains in chunks of steps; after each chunk it reports progress and saves checkpoints.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from masksweep.strategies.plan import Plan
from masksweep.sweeps.components.datasets import named
from masksweep.sweeps.components.datasets.named import Split
from masksweep.sweeps.components.datasets.pipeline import Pipeline
from masksweep.sweeps.results import Diverged, Report
from masksweep.sweeps.training import (
    batches,
    early_stopping,
    evaluation,
    keras_metrics,
    mask_course,
    setup,
)
from masksweep.sweeps.training.checkpoint import Checkpoints, State
from masksweep.sweeps.training.feed import feed_for
from masksweep.sweeps.training.program import MAX_EVALUATED_SAMPLES, Program
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.state import CHUNK_SECONDS
from masksweep.sweeps.training.step_counts import step_counts
from masksweep.sweeps.training.steps import LossLimit, Progress, Steps
from masksweep.sweeps.training.trial_run import TrialRun

if TYPE_CHECKING:
    from masksweep.sweeps.training.vectorized import PackedProgram


class TrainingLoop:
    """Trains runs that share a program and are at the same step.

    Args:
        runs: One run for a `Program`, up to `width` runs for a `PackedProgram`.
        program: The program; its variables hold the values that the runs start from.
        audit_every: Number of steps between two audits, in place of the trials' setting.
    """

    def __init__(
        self,
        runs: Sequence[TrialRun],
        program: Program | PackedProgram,
        audit_every: int | None = None,
    ) -> None:
        first = runs[0].start
        self.runs, self.program = list(runs), program
        self.programs = [program]
        """All programs that the loop has used: a second one only after `train.resume_at`."""
        self._feed = feed_for([run.start for run in runs])
        self._trial = first.trial
        self._epoch, self.total = step_counts(first.trial, first.data.samples)
        """Training steps of the whole trial."""
        self._audit_every = audit_every or first.trial.audit.every
        training = program.single_program.training
        self.changes = mask_course.of_start(first, training.weights)
        """What changes the masks; None if nothing does."""
        self.change_seconds: list[float] = []
        """How long each change of the masks took, of those in this process."""
        if self.changes is not None:
            runs[0].restore_changes(self.changes, training)
        self._steps, self._chunk = runs[0].position.found.steps, 1
        self.samples, _ = self._feed.at(self._steps)
        """The samples of the newest steps."""
        self._reported = self._stopped = False

    @property
    def active(self) -> list[TrialRun]:
        """The runs that still train."""
        return [run for run in self.runs if run.error is None]

    def train(self, until: int | None = None) -> None:
        """Trains to the last step, to the step `until`, or until early stopping ends the training.

        An exception that ends a run early is kept as the run's `error`; the other runs go on.
        """
        self._report_resumed()
        total = self.total if until is None else until
        while self._steps < total and self.active and not self._stopped:
            train, epoch_end = self._trial.train, (self._steps // self._epoch + 1) * self._epoch
            resumes = [train.resume_at] if train.resume_at else []
            events = [*resumes, *(self.changes.events if self.changes else [])]
            next_event = min((s for s in events if s > self._steps), default=self.total)
            self._train_chunk(min(total, epoch_end, next_event) - self._steps, next_event)
            last_step = self._steps == self.total
            ended = self._steps == epoch_end or last_step
            monitored = ended and train.early_stopping is not None
            scores = self.scores("validation") if monitored or (ended and not last_step) else []
            if monitored and self.active:
                self._stopped = self._take_epoch(scores[0])
            finished = last_step or self._stopped
            self._report(scores if ended and not finished else [])
            for run in self.active:
                run.position.epochs += ended
                if ended and not finished:
                    run.position.part = Progress()
            if not finished and self.active:
                self._handle_events()
                self._save(ended)
            if finished:
                self._restore_best()

    def run(self, until: int | None = None) -> None:
        """As `train`, but raises the exception that ended the first run, such as `Diverged`."""
        self.train(until)
        if (error := self.runs[0].error) is not None:
            raise error

    def _report_resumed(self) -> None:
        """Reports the notes and the metrics that the runs took from their checkpoints."""
        if self._reported:
            return
        self._reported = True
        for run in self.runs:
            if run.note:
                run.report(self.total)
            for epoch, metrics in enumerate(run.position.curve, start=1):
                run.emit(Report(self._steps, self.total, epoch, metrics))

    def _train_chunk(self, max_steps: int, next_event: int) -> None:
        """Runs one chunk of steps, which takes about `CHUNK_SECONDS`.

        Args:
            max_steps: Largest number of steps of the chunk.
            next_event: Step number of the next event, or of the last step. Violations are counted
                there too, if the masks change.
        """
        self.samples, available = self._feed.at(self._steps)
        count = min(self._chunk, max_steps, available)
        last = next_event if self.changes else self.total
        steps = Steps(self._steps, count, self._audit_every, last, self._epoch)
        limits = [
            LossLimit(r.position.part.loss, r.position.limit, active=r.error is None)
            for r in self.runs
        ]
        tic = time.perf_counter()
        results = self.program.run(*self.samples, steps, limits)
        # the first chunk has one step: it measures the time of a step, and the loss before training
        self._chunk = 1 + int(count * CHUNK_SECONDS / (time.perf_counter() - tic))
        self._steps += count
        if self.changes is not None:
            self.changes.add_violations(results[0].peak_violations)
        for run, progress in zip(self.runs, results, strict=False):
            if run.error is not None:
                continue
            with run.catching_errors():
                try:
                    run.position.add(progress, count)
                except Diverged:
                    part = run.position.part
                    run.report(self.total, {"train/loss": part.loss / part.steps})
                    raise

    def _take_epoch(self, scores: Mapping[str, float]) -> bool:
        """Takes the validation scores of an epoch, and returns whether the training ends with it.

        Args:
            scores: The scores of the only run, after the epoch.
        """
        (run,) = self.runs
        setting, best = self._trial.train.early_stopping, run.position.best
        assert setting is not None
        if best.update(setting.monitor, scores[setting.monitor], self._steps):
            run.best_weights = early_stopping.weights_of(self.program.single_program.training)
        return best.waited >= setting.patience

    def _restore_best(self) -> None:
        """Restores the weights of the best epoch at the end of a training with early stopping."""
        for run in self.active:
            if run.best_weights:
                early_stopping.restore(self.program.single_program.training, run.best_weights)

    def _report(self, validation_metrics: Sequence[Mapping[str, float]]) -> None:
        """Reports the chunk, with the epoch's metrics if it has ended.

        The last epoch is not reported with metrics here: they are part of the trial's result.

        Args:
            validation_metrics: Those of each run, if the epoch has ended; else empty.
        """
        epoch_ended = len(validation_metrics) > 0
        for number, run in enumerate(self.runs):
            if run.error is not None:
                continue
            if epoch_ended:
                program = self.program.single_program
                train_metrics = evaluation.epoch_metrics(run.start, program, run.position)
                run.position.curve.append({**train_metrics, **validation_metrics[number]})
            run.report(self.total, run.position.curve[-1] if epoch_ended else None)

    def scores(self, part: evaluation.Part) -> list[dict[str, float]]:
        """Loss, score and `train.metrics` of each run on one part of the data.

        They are empty if there is no such part.
        """
        split = getattr(self.runs[0].start.data, part)
        if split is None:
            return [{} for _ in self.runs]
        scores = self._evaluate(split)
        program = self.program.single_program
        results = [evaluation.named_metrics(part, program, pair) for pair in scores]
        if any(self._trial.metrics.values()) or self._trial.data.tasks:
            pieces = (
                split.batches(MAX_EVALUATED_SAMPLES) if isinstance(split, Pipeline) else [split]
            )
            pairs = [(self.program.outputs_of_lanes(x), y) for x, y in pieces]
            outputs = np.concatenate([of_piece for of_piece, _ in pairs], axis=1)
            y = named.join([targets for _, targets in pairs])
            heads = program.shape.heads
            for result, of_lane in zip(results, outputs, strict=False):
                values = keras_metrics.of_outputs(self._trial, heads, y, of_lane)
                result |= {f"{part}/{name}": value for name, value in values.items()}
        return results

    def _evaluate(self, split: Split | Pipeline) -> list[tuple[float, float]]:
        """(mean loss, score) of each run on all samples."""
        if not isinstance(split, Pipeline):
            return self.program.evaluate_lanes(*split)
        sums = np.zeros((self.program.single_program.shape.width, 2))
        for x, y in split.batches(MAX_EVALUATED_SAMPLES):
            sums += np.multiply(self.program.evaluate_lanes(x, y), named.count(x))
        return [(float(loss), float(score)) for loss, score in sums / len(split)]

    # -- checkpoints -----------------------------------------------------------------------------

    def _save(self, epoch_ended: bool) -> None:
        checkpoints, count = self.active[0].checkpoints, len(self.active)
        if checkpoints is None or not checkpoints.is_due(epoch_ended, trial_count=count):
            return
        for run, state in zip(self.runs, self._states(), strict=False):
            if run.error is None and run.checkpoints is not None:
                run.note = run.checkpoints.save(state)

    def _states(self) -> list[State]:
        count = len(self.program.single_program.training.variables)
        if self.changes is not None:  # the masks change too
            count = len(self.program.single_program.training.all_variables)
            run, arrays = self.runs[0], list(self.changes.saved.values())
            run.position.changes = [asdict(record) for record in self.changes.records]
            (lane,) = self.program.lanes(count)
            return [State(self._steps, asdict(run.position), [*lane, *arrays])]
        return [
            State(self._steps, asdict(run.position), [*lane, *run.best_weights])
            for run, lane in zip(self.runs, self.program.lanes(count), strict=False)
        ]

    # -- one trial alone -------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """The first run's plan with its current masks and held values."""
        masked, plan = self.program.single_program.training.masked, self.runs[0].start.plan
        weights = [
            replace(w, mask=m.kept.numpy(), held=m.held.numpy())
            for w in plan.weights
            if (m := masked.get(w.weight.name))
        ]
        return replace(plan, weights=tuple(weights))

    def next_batch(self) -> tuple[Any, Any]:
        """Inputs and targets of the next step."""
        return self._batch_of(self._steps)

    def _batch_of(self, step: int) -> tuple[Any, Any]:
        epoch, row = divmod(step, self._epoch)
        return next(batches.of_epoch(self.runs[0].start, epoch, row))

    def _handle_events(self) -> None:
        """Draws new masks, or moves on to a new program, if that is due at this step."""
        program = self.program.single_program
        if self.changes is not None:
            tic, count = time.perf_counter(), len(self.changes.records)
            self.changes.after_step(
                program.training,
                self._steps,
                lambda: program.dense_gradients(*self._batch_of(self._steps - 1)),
            )
            if len(self.changes.records) > count:
                self.change_seconds.append(time.perf_counter() - tic)
        if self._steps == self._trial.train.resume_at:
            self._continue_in_new_program()

    def _continue_in_new_program(self) -> None:
        """Continues in a new program, from a checkpoint that is saved and read again."""
        (run,) = self.runs
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(folder, run.start.trial.id, every_s=0)
            if note := checkpoints.save(self._states()[0]):
                raise OSError(note)
            program = setup.fresh_program(run.start)
            state, note = checkpoints.resume("")
            if state is None:
                raise OSError(note)
        count = len(program.training.all_variables)
        program.training.assign_first(state.arrays[:count])
        self.program = program
        self.programs.append(program)


def single_trial_loop(start: TrialStart, audit_every: int | None = None) -> TrainingLoop:
    """A training loop of one trial from its start, without reports and checkpoints.

    Args:
        start: The start of the trial.
        audit_every: Number of steps between two audits, in place of the trial's setting.
    """
    return TrainingLoop([TrialRun(start)], setup.program_for(start), audit_every)
