"""Trials that differ in values alone, trained side by side; each keeps results of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from sweeps import measure, prepare, through, trial
from sweeps.checkpoint import State
from sweeps.course import CHUNK_SECONDS, Position, fingerprint
from sweeps.folder import Folder
from sweeps.measure import Snapshot
from sweeps.memory import Peak
from sweeps.packed import Lane, Packed, Unpackable
from sweeps.prepare import Start
from sweeps.program import Progress, Shape
from sweeps.trial import Diverged, Member, Report, TrialResult

Found = TrialResult | Exception


def run(members: Sequence[Member], shelf: Folder | None = None) -> list[Found]:
    """Run trials that agree in all but values; what each came to, or what ended it, and no other.

    Those whose masks need programs of different shapes run in packs of their own, and those whose
    step cannot run side by side run alone, with a note of the reason.
    """
    found: dict[int, Found] = {}
    if members and members[0].trial.width == 1:
        return [_run_alone(m, shelf) for m in members]
    groups: dict[Shape, dict[int, Start]] = {}
    for number, member in enumerate(members):
        try:
            start = trial.begin(member.trial, shelf)
        except Exception as error:
            found[number] = error
            continue
        if isinstance(start, TrialResult):
            found[number] = start
        else:
            groups.setdefault(prepare.shape(start), {})[number] = start
    for shape, starts in groups.items():
        pack = [members[n] for n in starts]
        found |= zip(starts, _side_by_side(shape, list(starts.values()), pack, shelf), strict=True)
    return [found[n] for n in range(len(members))]


_alone: dict[Shape, str] = {}
"""Why no pack of these can be compiled, as this process found."""


def _side_by_side(
    shape: Shape, starts: Sequence[Start], pack: Sequence[Member], shelf: Folder | None
) -> Sequence[Found]:
    if shape not in _alone:
        try:
            return _Pack(starts, pack).run()
        except Unpackable as error:
            _alone[shape] = str(error)
            note = f"runs alone, as others of its kind: {error}"
            pack[0].emit(Report(0, 1, 1, note=note))
        except Exception as error:  # memory, for one: it is all of theirs
            return [error] * len(pack)
    return [_run_alone(member, shelf, _alone[shape]) for member in pack]


def _run_alone(member: Member, shelf: Folder | None, reason: str = "") -> Found:
    try:
        found = trial.run(member.trial, member.emit, member.checkpoints, shelf)
    except Exception as error:
        return error
    return replace(found, tags={**found.tags, "trial.alone": reason}) if reason else found


@dataclass(eq=False)
class _Run:
    """One trial of a pack on its way."""

    start: Start
    member: Member
    lane: Lane
    before: Snapshot
    first: Mapping[str, float]
    """Gradients of the first step."""
    resumed: State | None
    note: str
    at: Position = field(default_factory=Position)
    error: Exception | None = None

    def tell(self, total: int, metrics: Mapping[str, float] | None = None) -> None:
        at, note = self.at, self.note
        self.note = ""
        self.member.emit(Report(at.found.steps, total, at.epochs + 1, metrics or {}, note))


class _Pack:
    """Trials of one shape, from their start or their checkpoints of one step, to the end."""

    def __init__(self, starts: Sequence[Start], members: Sequence[Member]) -> None:
        self._peak, first = Peak(), starts[0]
        self._program: Packed = prepare.packed_for(first)
        self._compiled = self._program.compile_seconds
        self._samples = len(first.data.train[0])
        self._epoch, self._total = prepare.schedule(first.trial, self._samples)
        self._x, self._y = (tf.constant(a) for a in first.data.train)
        self._every = first.trial.audit.every
        self._validation, self._test = first.data.validation, first.data.test
        self._order: Any = None
        self._steps, self._chunk = 0, 1
        # one may have been killed while it saved
        common = set.intersection(*(m.checkpoints.steps() for m in members))
        self._runs = [self._begin(*pair, common) for pair in zip(starts, members, strict=True)]

    def _begin(self, start: Start, member: Member, common: set[int]) -> _Run:
        lane = prepare.lane(self._program, start)
        one = self._program.one
        rows = prepare.order(start.trial, self._samples, 0)[0]
        batch = tf.gather(self._x, rows), tf.gather(self._y, rows)
        first = measure.gradients(start, one, batch)
        state, note = member.checkpoints.resume(fingerprint(one.training), common)
        return _Run(start, member, lane, measure.snapshot(start, one), first, state, note)

    @property
    def _going(self) -> list[_Run]:
        return [r for r in self._runs if r.error is None]

    def run(self) -> list[Found]:
        self._resume()
        self._program.fill([r.lane for r in self._runs])
        while self._steps < self._total and self._going:
            self._go_on()
        return self._ended()

    def _resume(self) -> None:
        """Go on from the checkpoints, where all are of one step."""
        states = [r.resumed for r in self._runs]
        steps = {s.steps if s else 0 for s in states}
        if len(steps) > 1:
            for run in self._runs:
                run.note = "started anew: the pack's checkpoints are of different steps"
        elif steps != {0}:
            self._steps = steps.pop()
            for run, state in zip(self._runs, states, strict=True):
                assert state is not None
                run.at = Position.of(state.position)
                # masks and held values are not part of it: they do not change
                run.lane = [*state.arrays, *run.lane[len(state.arrays) :]]
        for run in self._runs:
            if run.note:
                run.tell(self._total)
            for epoch, metrics in enumerate(run.at.curve, start=1):
                run.member.emit(Report(self._steps, self._total, epoch, metrics))

    def _go_on(self) -> None:
        """One chunk of steps, at most to the end of the epoch."""
        epochs, done = divmod(self._steps, self._epoch)
        if self._order is None or not done:
            orders = [prepare.order(r.start.trial, self._samples, epochs) for r in self._runs]
            self._order = np.stack(self._program.padded(orders))
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
                run.at.curve.append(measure.epoch(self._program.one, run.at.part) | new)
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

    def _scores(self, part: measure.Part, split: Any) -> list[dict[str, float]]:
        if split is None:
            return [{} for _ in self._runs]
        found = self._program.evaluate(*split)
        return [measure.named(part, self._program.one, f) for f in found]

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
        lanes, finalizing = self._program.lanes(), []
        for number, _ in enumerate(self._runs):
            finalizing.append(through.finalize(self._program.look(lanes[number])))
            lanes[number] = self._program.lane()
        self._program.fill(lanes)
        parts = [self._scores("validation", self._validation), self._scores("test", self._test)]
        shared: dict[str, float] = {}
        if (largest := self._peak.bytes()) is not None:
            shared["memory/peak_bytes"] = largest
        compiled = self._program.compile_seconds - self._compiled
        shared["speed/compile_s"] = compiled / len(self._runs)
        results: dict[int, TrialResult] = {}
        for number, run in enumerate(self._runs):
            if run.error is None:
                with _ending(run):
                    one = self._program.look(lanes[number])
                    result = trial.ended(
                        run.start, run.start.plan, one, run.before, run.at, finalizing[number]
                    )
                    metrics = {**result.metrics, **run.first, **shared}
                    for scores in parts:
                        metrics |= scores[number]
                    results[number] = replace(result, metrics=metrics)
        timed = self._timed() if results else {}
        return [
            run.error or replace(results[n], metrics={**results[n].metrics, **timed})
            for n, run in enumerate(self._runs)
        ]

    def _timed(self) -> dict[str, float]:
        if not self._runs[0].start.trial.speed.rounds:
            return {}
        starts = [r.start for r in self._runs]
        try:
            return measure.step_time_of_pack(starts, self._program, (self._x, self._y, self._order))
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
