"""The training of one trial, or of several side by side: chunks of steps, reported and saved."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.base import Plan
from masksweep.strategies.core import audit
from masksweep.strategies.core.training import Training
from masksweep.sweeps.results import Diverged, Report
from masksweep.sweeps.training import evaluation, setup
from masksweep.sweeps.training.checkpoint import Checkpoints, State
from masksweep.sweeps.training.program import Lane, Program
from masksweep.sweeps.training.setup import Start
from masksweep.sweeps.training.state import CHUNK_SECONDS, Emit, Position
from masksweep.sweeps.training.steps import LossLimit, Progress, Steps

if TYPE_CHECKING:
    from masksweep.sweeps.training.vectorized import Packed


@dataclass(eq=False)
class Run:
    """The training of one trial."""

    start: Start
    emit: Emit = lambda report: None
    checkpoints: Checkpoints | None = None
    at: Position = field(default_factory=Position)
    note: str = ""
    """What its next report says beside its figures."""
    error: Exception | None = None
    """What ended it before its last step."""

    def resume(self, training: Training, kind: str = "") -> Lane:
        """Go on from the newest usable checkpoint, if there is one.

        Args:
            training: At its start.
            kind: Keeps checkpoints apart whose steps were not the same to the last bit.

        Returns:
            The values of the first variables of `training.all_variables`. What does not change is
            no part of a checkpoint: masks and held values come last.
        """
        if self.checkpoints is None:
            return []
        state, self.note = self.checkpoints.resume(f"{fingerprint(training)}{kind}")
        if state is None:
            return []
        self.at = Position.of(state.position)
        return state.arrays

    def report(self, total: int, metrics: Mapping[str, float] | None = None) -> None:
        at, note = self.at, self.note
        self.note = ""
        self.emit(Report(at.found.steps, total, at.epochs + 1, metrics or {}, note))

    @contextmanager
    def ending(self) -> Iterator[None]:
        """What is raised meanwhile ends this trial, and no other one."""
        try:
            yield
        except Exception as error:
            self.error = error


class TrainingLoop:
    """Trains runs of one shape that are at the same step.

    Args:
        runs: One run for a `Program`, up to `width` for a `Packed`.
        program: Holds the values that the runs start from.
        audit_every: Steps between two audits, in place of the trials' own.
    """

    def __init__(
        self, runs: Sequence[Run], program: Program | Packed, audit_every: int | None = None
    ) -> None:
        first = runs[0].start
        self.runs, self.program = list(runs), program
        self.programs = [program]
        """All that it ran in: one, but for `train.resume_at`."""
        self.x, self.y = (tf.constant(a) for a in first.data.train)
        self.order: Any = None
        """The samples of the epoch's batches, `[runs, steps, batch]`."""
        self._trial, self._samples = first.trial, len(first.data.train[0])
        self._epoch, self._total = setup.schedule(first.trial, self._samples)
        self._audit_every = audit_every or first.trial.audit.every
        self._steps, self._chunk = runs[0].at.found.steps, 1
        self._reported = False

    @property
    def active(self) -> list[Run]:
        """Those that go on."""
        return [run for run in self.runs if run.error is None]

    def train(self, until: int | None = None) -> None:
        """Train to the last step, or to that one. What ends a run is its `error`."""
        self._report_resumed()
        total = self._total if until is None else until
        while self._steps < total and self.active:
            epoch, done = divmod(self._steps, self._epoch)
            if self.order is None or not done:
                orders = [setup.order(r.start.trial, self._samples, epoch) for r in self.runs]
                self.order = tf.constant(np.stack(orders))
            train, end = self._trial.train, (epoch + 1) * self._epoch
            events = [s for s in (train.switch_at, train.resume_at) if s and s > self._steps]
            self._train_chunk(min(total, end, *events) - self._steps)
            last = self._steps == self._total
            ended = self._steps == end or last
            self._report(epoch_ended=ended and not last)
            for run in self.active:
                run.at.epochs += ended
                if ended and not last:
                    run.at.part = Progress()
            if not last and self.active:
                self._handle_events()
                self._save(ended)

    def run(self, until: int | None = None) -> None:
        """As `train`. Raises what ended the first run, such as `Diverged`."""
        self.train(until)
        if (error := self.runs[0].error) is not None:
            raise error

    def _report_resumed(self) -> None:
        """What a checkpoint held, once more."""
        if self._reported:
            return
        self._reported = True
        for run in self.runs:
            if run.note:
                run.report(self._total)
            for epoch, metrics in enumerate(run.at.curve, start=1):
                run.emit(Report(self._steps, self._total, epoch, metrics))

    def _train_chunk(self, most: int) -> None:
        """Steps for about two seconds, at most so many."""
        count = min(self._chunk, most)
        steps = Steps(self._steps, count, self._audit_every, self._total)
        limits = [LossLimit(r.at.part.loss, r.at.limit, active=r.error is None) for r in self.runs]
        tic = time.perf_counter()
        results = self.program.run(self.x, self.y, self.order, steps, limits)
        # one step at first: it says what a step takes, and the loss before training
        self._chunk = 1 + int(count * CHUNK_SECONDS / (time.perf_counter() - tic))
        self._steps += count
        for run, progress in zip(self.runs, results, strict=False):
            if run.error is not None:
                continue
            with run.ending():
                try:
                    run.at.take(progress, count)
                except Diverged:
                    part = run.at.part
                    run.report(self._total, {"train/loss": part.loss / part.steps})
                    raise

    def _report(self, epoch_ended: bool) -> None:
        """Report the chunk; at the end of an epoch its metrics, which for the last one are the
        result's own.
        """
        validation = self.scores("validation") if epoch_ended else []
        for number, run in enumerate(self.runs):
            if run.error is not None:
                continue
            if epoch_ended:
                of_epoch = evaluation.epoch(run.start, self.program.one, run.at)
                run.at.curve.append(of_epoch | validation[number])
            run.report(self._total, run.at.curve[-1] if epoch_ended else None)

    def scores(self, part: evaluation.Part) -> list[dict[str, float]]:
        """Loss and score of one part of the data, for each run; empty if there is no such part."""
        split = getattr(self.runs[0].start.data, part)
        if split is None:
            return [{} for _ in self.runs]
        scores = self.program.evaluate_lanes(*split)
        return [evaluation.named(part, self.program.one, each) for each in scores]

    # -- checkpoints -----------------------------------------------------------------------------

    def _save(self, epoch_ended: bool) -> None:
        checkpoints, count = self.active[0].checkpoints, len(self.active)
        if checkpoints is None or not checkpoints.due(epoch_ended, among=count):
            return
        for run, state in zip(self.runs, self._states(), strict=False):
            if run.error is None and run.checkpoints is not None:
                run.note = run.checkpoints.save(state)

    def _states(self) -> list[State]:
        changing = len(self.program.one.training.variables)
        if self._trial.train.switch_at is not None:  # which changes the masks too
            changing = len(self.program.one.training.all_variables)
        return [
            State(self._steps, asdict(run.at), lane)
            for run, lane in zip(self.runs, self.program.lanes(changing), strict=False)
        ]

    # -- one trial alone -------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """What is held now."""
        masked, plan = self.program.one.training.masked, self.runs[0].start.plan
        weights = [
            replace(w, mask=m.kept.numpy(), held=m.held.numpy())
            for w in plan.weights
            if (m := masked.get(w.weight.name))
        ]
        return replace(plan, weights=tuple(weights))

    def next_batch(self) -> tuple[Any, Any]:
        """What the next step trains on."""
        epoch, row = divmod(self._steps, self._epoch)
        rows = setup.order(self._trial, self._samples, epoch)[row]
        return tf.gather(self.x, rows), tf.gather(self.y, rows)

    def _handle_events(self) -> None:
        """Draw new masks, or go on in another program, if that is due at this step."""
        train, start = self._trial.train, self.runs[0].start
        if self._steps == train.switch_at:
            program = self.program.one
            now = program.effective()
            plan = setup.switched(start.trial, program.training.weights, start.plan, now)
            program.training.switch(plan)
        if self._steps == train.resume_at:
            self._go_on_elsewhere()

    def _go_on_elsewhere(self) -> None:
        """Leave the program for a new one, by a checkpoint in a folder."""
        (run,) = self.runs
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(folder, run.start.trial.id, every_s=0)
            if note := checkpoints.save(self._states()[0]):
                raise OSError(note)
            program = setup.fresh_program(run.start)
            state, note = checkpoints.resume("")
            if state is None:
                raise OSError(note)
        program.training.put_first(state.arrays)
        self.program = program
        self.programs.append(program)


def alone(start: Start, audit_every: int | None = None) -> TrainingLoop:
    """The training of a trial from its start, which nobody is told of."""
    return TrainingLoop([Run(start)], setup.program_for(start), audit_every)


def fingerprint(training: Training) -> str:
    """SHA-256 of masks and held values, the shapes of all that a step changes, and versions."""
    held = {
        f"{name}/{part}": np.asarray(variable.numpy())
        for name, masked in training.masked.items()
        for part, variable in (("kept", masked.kept), ("held", masked.held))
    }
    shapes = [(tuple(v.shape), str(v.dtype)) for v in training.variables]
    versions = tf.__version__, keras.__version__
    return hashlib.sha256(f"{audit.digest(held)} {shapes} {versions}".encode()).hexdigest()
