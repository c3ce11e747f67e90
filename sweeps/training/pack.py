"""Trials that differ in values alone, trained side by side; each keeps results of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from masksweep.strategies.core import audit
from masksweep.sweeps.common.memory import Peak
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.results import Apart, Diverged, Report, TrialResult
from masksweep.sweeps.training import evaluation, leak_cause, program, run_trial, setup, timing
from masksweep.sweeps.training.checkpoint import State
from masksweep.sweeps.training.evaluation import Snapshot
from masksweep.sweeps.training.loop import fingerprint
from masksweep.sweeps.training.program import Progress, Shape
from masksweep.sweeps.training.setup import Start
from masksweep.sweeps.training.state import CHUNK_SECONDS, Member, Position
from masksweep.sweeps.training.vectorized import Lane, Packed, Unpackable

Found = TrialResult | Exception


def run(members: Sequence[Member], shelf: Folder | None = None) -> list[Found]:
    """Run trials that agree in all but values; what each came to, or what ended it, and no other.

    Those whose masks need programs of different shapes, or whose checkpoints are of different
    steps, run in packs of their own. Raises `Apart` where several cannot run side by side; a single
    one runs alone then, with the reason as the tag `trial.alone`.
    """
    if members and members[0].trial.width == 1:
        return [_run_alone(m, shelf) for m in members]
    peak, found = Peak(), dict[int, Found]()
    groups: dict[tuple[Shape, int], dict[int, _Run]] = {}
    for number, member in enumerate(members):
        try:
            start = run_trial.begin(member.trial, shelf)
            if isinstance(start, TrialResult):
                found[number] = start
                continue
            shape = setup.shape(start)
            if shape in _alone:
                return _apart(members, shelf, _alone[shape])
            run = _begin(start, member)
            groups.setdefault((shape, run.at.found.steps), {})[number] = run
        except Apart:
            raise
        except Exception as error:
            found[number] = error
    for (shape, _), runs in groups.items():
        try:
            found |= zip(runs, _Pack(list(runs.values()), peak).run(), strict=True)
        except Unpackable as error:
            _alone[shape] = str(error)
            program.forget(replace(shape, width=members[0].trial.width))
            note = f"runs alone, as others of its kind: {error}"
            members[0].emit(Report(0, 1, 1, note=note))
            return _apart(members, shelf, str(error))
        except Exception as error:  # memory, for one: which of them can do without the others?
            if len(members) > 1:
                note = f"the trials of its pack run alone: {error}"
                members[0].emit(Report(0, 1, 1, note=note))
                raise Apart(str(error)) from error
            return [error]
    return [found[n] for n in range(len(members))]


_alone: dict[Shape, str] = {}
"""Why no pack of these can be compiled, as this process found."""


def _apart(members: Sequence[Member], shelf: Folder | None, reason: str) -> list[Found]:
    if len(members) > 1:
        raise Apart(reason)
    return [_run_alone(members[0], shelf, reason)]


def _run_alone(member: Member, shelf: Folder | None, reason: str = "") -> Found:
    try:
        found = run_trial.run(member.trial, member.emit, member.checkpoints, shelf)
    except Exception as error:
        return error
    return replace(found, tags={**found.tags, "trial.alone": reason}) if reason else found


@dataclass(eq=False)
class _Run:
    """One trial of a pack on its way."""

    start: Start
    member: Member
    lane: Lane
    """Its values where it begins."""
    before: Snapshot
    first: Mapping[str, float]
    """Gradients of the first step."""
    note: str
    at: Position
    error: Exception | None = None

    def tell(self, total: int, metrics: Mapping[str, float] | None = None) -> None:
        at, note = self.at, self.note
        self.note = ""
        self.member.emit(Report(at.found.steps, total, at.epochs + 1, metrics or {}, note))


def _begin(start: Start, member: Member) -> _Run:
    """A trial at its start, or at its newest checkpoint."""
    packed = setup.packed_for(start)
    lane = setup.lane(packed, start)
    one = packed.look(lane)
    x, y = start.data.train
    rows = setup.order(start.trial, len(x), 0)[0]
    first = evaluation.gradients(start, one, (tf.constant(x[rows]), tf.constant(y[rows])))
    before, at = evaluation.snapshot(start, one), Position()
    # a trial that has run alone meanwhile was on another path, to rounding
    state, note = member.checkpoints.resume(f"{fingerprint(one.training)} in a pack")
    if state:
        at = Position.of(state.position)
        # masks and held values are not part of it: they do not change
        lane = [*state.arrays, *lane[len(state.arrays) :]]
    return _Run(start, member, lane, before, first, note, at)


class _Pack:
    """Trials of one shape that are at the same step, to the end."""

    def __init__(self, runs: Sequence[_Run], peak: Peak) -> None:
        self._runs, self._peak, first = runs, peak, runs[0].start
        self._program: Packed = setup.packed_for(first)
        self._compiled = self._program.compile_seconds
        self._samples = len(first.data.train[0])
        self._epoch, self._total = setup.schedule(first.trial, self._samples)
        self._x, self._y = (tf.constant(a) for a in first.data.train)
        self._every = first.trial.audit.every
        self._validation, self._test = first.data.validation, first.data.test
        self._order: Any = None
        self._steps, self._chunk = runs[0].at.found.steps, 1

    @property
    def _going(self) -> list[_Run]:
        return [r for r in self._runs if r.error is None]

    def run(self) -> list[Found]:
        for run in self._runs:
            if run.note:
                run.tell(self._total)
            for epoch, metrics in enumerate(run.at.curve, start=1):
                run.member.emit(Report(self._steps, self._total, epoch, metrics))
        self._program.fill([r.lane for r in self._runs])
        for run in self._runs:
            run.lane = []  # large, and in the program now
        while self._steps < self._total and self._going:
            self._go_on()
        return self._ended()

    def _go_on(self) -> None:
        """One chunk of steps, at most to the end of the epoch."""
        epochs, done = divmod(self._steps, self._epoch)
        if self._order is None or not done:
            orders = [setup.order(r.start.trial, self._samples, epochs) for r in self._runs]
            self._order = tf.constant(np.stack(orders))
        steps = min(self._chunk, self._total - self._steps, self._epoch - done)
        tic = time.perf_counter()
        found = self._program.run(
            self._x, self._y, self._order, self._steps, steps, self._every, self._total,
            [r.at.part.loss for r in self._runs], [self._limit(r) for r in self._runs],
        )  # fmt: skip
        self._chunk = 1 + int(steps * CHUNK_SECONDS / (time.perf_counter() - tic))
        self._steps += steps
        ended, last = done + steps == self._epoch, self._steps == self._total
        going = self._take(found, steps)
        validation = self._scores("validation", self._validation) if ended and not last else []
        for run, new in zip(self._runs, validation, strict=False):
            if run in going:
                run.at.curve.append(evaluation.epoch(run.start, self._program.one, run.at) | new)
                run.tell(self._total, run.at.curve[-1])
        for run in going:
            if not validation:
                run.tell(self._total)
            run.at.epochs += ended or last
            if ended and not last:
                run.at.part = Progress()
        if not last:
            self._keep(ended)

    def _limit(self, run: _Run) -> float:
        """Nothing is within minus one: a trial that has diverged goes on no more."""
        return -1.0 if run.error else run.at.limit

    def _take(self, found: Sequence[Progress], steps: int) -> list[_Run]:
        """Those that go on."""
        for run, new in zip(self._runs, found, strict=False):
            if run.error is None:
                with _ending(run):
                    try:
                        run.at.take(new, steps)
                    except Diverged:
                        run.tell(self._total, {"train/loss": run.at.part.loss / run.at.part.steps})
                        raise
        return self._going

    def _scores(self, part: evaluation.Part, split: Any) -> list[dict[str, float]]:
        if split is None:
            return [{} for _ in self._runs]
        found = self._program.evaluate(*split)
        return [evaluation.named(part, self._program.one, f) for f in found]

    def _keep(self, epoch_ended: bool) -> None:
        going = self._going
        if not going or not going[0].member.checkpoints.due(epoch_ended, among=len(going)):
            return
        changing = len(self._program.one.training.variables)
        lanes = self._program.lanes()
        for run, lane in zip(self._runs, lanes, strict=False):
            if run.error is None:
                state = State(self._steps, asdict(run.at), lane[:changing])
                run.note = run.member.checkpoints.save(state)

    def _ended(self) -> list[Found]:
        compiled = self._program.compile_seconds - self._compiled
        shared = {"speed/compile_s": compiled / len(self._runs)}
        if (largest := self._peak.bytes()) is not None:
            shared["memory/peak_bytes"] = largest  # of all of them: none could do with less
        lanes, loader = self._program.lanes(), audit.Loader()
        results: dict[int, TrialResult] = {}
        for number, run in enumerate(self._runs):
            if run.error is None:
                with _ending(run):
                    one = self._program.look(lanes[number])
                    finalizing = leak_cause.finalize(one)
                    lanes[number] = self._program.lane()
                    results[number] = run_trial.ended(
                        run.start, run.start.plan, one, run.before, run.at, finalizing, loader
                    )
        self._program.fill(lanes)
        parts = [self._scores("validation", self._validation), self._scores("test", self._test)]
        timed = self._timed() if results else {}
        for number, result in results.items():
            metrics = {**result.metrics, **self._runs[number].first, **shared, **timed}
            for scores in parts:
                metrics |= scores[number]
            tags = {**result.tags, **timing.tags(metrics)}
            results[number] = replace(result, metrics=metrics, tags=tags)
        return [run.error or results[n] for n, run in enumerate(self._runs)]

    def _timed(self) -> dict[str, float]:
        if not self._runs[0].start.trial.speed.rounds:
            return {}
        starts = [r.start for r in self._runs]
        try:
            return evaluation.step_time_of_pack(
                starts, self._program, (self._x, self._y, self._order)
            )
        except Exception as error:  # memory, for one; what was found is not lost with it
            run = self._going[0]
            run.note = f"the pack was not timed: {error}"
            run.tell(self._total)
            return {}


@contextmanager
def _ending(run: _Run) -> Any:
    """What is raised ends this trial, and no other one."""
    try:
        yield
    except Exception as error:
        run.error = error
