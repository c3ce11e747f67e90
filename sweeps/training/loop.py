"""A trial's training: in chunks of steps, reported and kept on the way, ended where it diverges."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.base import Plan
from masksweep.strategies.core import audit
from masksweep.strategies.core.training import Training
from masksweep.sweeps.results import Diverged, Report
from masksweep.sweeps.training import evaluation, setup
from masksweep.sweeps.training.checkpoint import Checkpoints, State
from masksweep.sweeps.training.program import Program, Progress
from masksweep.sweeps.training.setup import Start
from masksweep.sweeps.training.state import CHUNK_SECONDS, Emit, Position


class Course:
    """One training from its start, or its newest usable checkpoint, to its end."""

    def __init__(
        self,
        start: Start,
        program: Program,
        emit: Emit = lambda report: None,
        checkpoints: Checkpoints | None = None,
        every: int | None = None,
    ) -> None:
        self._start, self._emit = start, emit
        self.program = program
        self.programs = [program]
        """All that it ran in: one, but for `train.resume_at`."""
        self._every = every or start.trial.audit.every
        self._checkpoints, self._note = checkpoints, ""
        self._samples = len(start.data.train[0])
        self._epoch, self._total = setup.schedule(start.trial, self._samples)
        self.x, self.y = (tf.constant(a) for a in start.data.train)
        self.order: Any = None
        """The samples of the epoch's batches, `[steps, batch]`."""
        self.at = Position()

    @property
    def plan(self) -> Plan:
        """What is held now."""
        masked = self.program.training.masked
        weights = [
            replace(w, mask=m.kept.numpy(), held=m.held.numpy())
            for w in self._start.plan.weights
            if (m := masked.get(w.weight.name))
        ]
        return replace(self._start.plan, weights=tuple(weights))

    def next_batch(self) -> tuple[Any, Any]:
        """What the step after those that were done trains on."""
        epoch, row = divmod(self.at.found.steps, self._epoch)
        rows = setup.order(self._start.trial, self._samples, epoch)[row]
        return tf.gather(self.x, rows), tf.gather(self.y, rows)

    def run(self, until: int | None = None) -> None:
        """Train to the last step, or to that one. Raises `Diverged`."""
        self._resume()
        at, train = self.at, self._start.trial.train
        total = self._total if until is None else until
        while at.found.steps < total:
            if self.order is None or not at.part.steps:
                self.order = setup.order(self._start.trial, self._samples, at.epochs)
            end = (at.epochs + 1) * self._epoch
            stops = [s for s in (train.switch_at, train.resume_at) if s and s > at.found.steps]
            self._train(min(total, end, *stops) - at.found.steps)
            ended, last = at.found.steps in (end, self._total), at.found.steps == self._total
            if ended and not last:  # the last epoch's metrics are the result's own
                validation = evaluation.scores(self._start, self.program, "validation")
                at.curve.append(evaluation.epoch(self._start, self.program, at) | validation)
                self._tell(at.curve[-1])
            else:
                self._tell()
            at.epochs += ended
            if not last:
                at.part = Progress() if ended else at.part
                self._at_event(at.found.steps)
                self._keep(ended)

    def _at_event(self, step: int) -> None:
        train = self._start.trial.train
        if step == train.switch_at:
            training, start = self.program.training, self._start
            now = self.program.effective()
            training.switch(setup.switched(start.trial, training.weights, start.plan, now))
        if step == train.resume_at:
            self._go_on_elsewhere()

    def _go_on_elsewhere(self) -> None:
        """Leave the program for a fresh one, by way of a checkpoint in a folder."""
        with tempfile.TemporaryDirectory() as folder:
            kept = Checkpoints(folder, self._start.trial.id, every_s=0)
            if note := kept.save(self._state()):
                raise OSError(note)
            self.program = setup.fresh_program(self._start)
            self.programs.append(self.program)
            state, note = kept.resume("")
            if state is None:
                raise OSError(note)
        self._restore(state)

    def _train(self, most: int) -> None:
        at = self.at
        steps = min(at.chunk, most)
        every, tic = self._every, time.perf_counter()
        numbers = at.found.steps, steps, every, self._total, at.part.loss, at.limit
        new = self.program.run(self.x, self.y, self.order, *numbers)
        at.chunk = 1 + int(steps * CHUNK_SECONDS / (time.perf_counter() - tic))
        try:
            at.take(new, steps)
        except Diverged:
            self._tell({"train/loss": at.part.loss / at.part.steps})
            raise

    def _tell(self, metrics: Mapping[str, float] | None = None) -> None:
        at, note = self.at, self._note
        self._note = ""
        self._emit(Report(at.found.steps, self._total, at.epochs + 1, metrics or {}, note))

    def _keep(self, epoch_ended: bool) -> None:
        if self._checkpoints and self._checkpoints.due(epoch_ended):
            self._note = self._checkpoints.save(self._state())

    def _variables(self) -> list[Any]:
        training = self.program.training
        switches = self._start.trial.train.switch_at is not None
        return [*training.variables, *(training.plan_variables if switches else ())]

    def _state(self) -> State:
        arrays = [np.asarray(v.numpy()) for v in self._variables()]
        return State(self.at.found.steps, asdict(self.at), arrays)

    def _restore(self, state: State) -> None:
        for variable, array in zip(self._variables(), state.arrays, strict=True):
            variable.assign(array)

    def _resume(self) -> None:
        if self._checkpoints is None:
            return
        state, self._note = self._checkpoints.resume(fingerprint(self.program.training))
        if state:
            self.at = Position.of(state.position)
            self._restore(state)
        if self._note:
            self._tell()
        steps = self.at.found.steps
        for epoch, metrics in enumerate(self.at.curve, start=1):
            self._emit(Report(steps, self._total, epoch, metrics))


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
