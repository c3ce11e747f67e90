"""How far a sweep is: what runs, what ended, the best so far, and how long the rest takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from threading import RLock
from typing import Protocol

from masksweep.sweeps.config.outcome import Outcome

IDLE_SECONDS = 5.0
"""A worker that has been without a trial for longer does not count as one."""
TELLING = 0.1
"""The part of a first trial that says how long the others take."""


class Report(Protocol):
    """How far a running trial is: `steps` of `total` are done, `epoch` (from 1) is the last."""

    @property
    def steps(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float]:
        """By their names in the house; empty where no epoch has ended."""

    @property
    def note(self) -> str:
        """Worth a line of its own, as `resumed from step 1200`; mostly empty."""


@dataclass
class Running:
    """A trial on its worker. Times are the clock's, in seconds; parts are of 1, the whole trial."""

    name: str
    worker: int
    since: float
    heard: float
    """When the last report came."""
    share: float = 1.0
    """Its part of the worker, which may run others beside it."""
    part: float = 0.0
    """What was done by then."""
    before: float = 0.0
    """What an attempt before this one had done."""
    epoch: int = 0
    score: str = ""
    """The last one, as `validation 0.912`."""


class Tally:
    """Keeps nothing of a trial that ended but the counts and the bests that it changed.

    One thread changes it and another one draws it: both hold `lock` meanwhile.
    """

    def __init__(self, total: int, done: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.lock = RLock()  # a signal's handler may print, and so draw, while it is held
        self.total, self.done, self.ended = total, done, 0
        self.phase = "Starting the workers"
        self.waiting, self.away = 0, 0.0
        """Records that wait on disk, and for how many seconds the store has been away."""
        self.running: dict[str, Running] = {}
        self.counts: Counter[str] = Counter()
        """How many were `skipped`, `failed` and `retried`."""
        self.best: dict[str, dict[str, float]] = {}
        """By `accuracy` or `mse`, then by strategy."""
        self._clock, self._since = clock, clock()
        self._free: dict[int, float] = {}
        self._spent = self._worth = 0.0

    @property
    def finished(self) -> int:
        """How many trials of the sweep need no more work."""
        return self.done + self.ended

    @property
    def passed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._since

    def start(self, key: str, name: str, worker: int, share: float = 1.0) -> None:
        """A worker, or a share of it, has been given the trial."""
        self.phase = ""
        now, free = self._clock(), self._free.pop(worker, None)
        # what passes between two trials is part of what a trial costs
        since = now if free is None or now - free > IDLE_SECONDS else free
        self.running[key] = Running(name, worker, since, since, share)

    def report(self, key: str, report: Report) -> Running:
        """The trial says how far it is."""
        trial = self.running[key]
        part = min(1.0, report.steps / report.total) if report.total else 0.0
        if report.note and not trial.part:
            trial.before = part
        trial.heard, trial.part, trial.epoch = self._clock(), part, report.epoch
        for data in ("validation", "train"):
            if found := score(report.metrics, data):
                trial.score = f"{data} {shown(*found)}"
                break
        return trial

    def retry(self, key: str) -> Running:
        """The trial's worker was lost; another one will be given it."""
        self.counts["retried"] += 1
        return self.running.pop(key)

    def end(self, outcome: Outcome) -> None:
        """The trial ended, or never had to start."""
        trial, now = self.running.pop(outcome.trial.id, None), self._clock()
        self.ended += 1
        if trial:
            self._free[trial.worker] = now
        if outcome.status != "ok":
            self.counts[outcome.status] += 1
        if trial and outcome.status != "skipped":
            self._spent += (now - trial.since) * trial.share
            self._worth += 1 - trial.before
        found = score(outcome.result.metrics, "test") if outcome.status == "ok" else None
        if found and isfinite(found[1]):
            (metric, value), strategy = found, outcome.trial.strategy.name
            best = self.best.setdefault(metric, {})
            better = max if metric == "accuracy" else min
            best[strategy] = better(value, best.get(strategy, value))

    def close(self, phase: str) -> None:
        """No trial runs any more: the sweep has come to what is done after the last one."""
        self.phase = phase
        self.running.clear()

    def left(self) -> float | None:
        """Seconds until the last trial ends, if the rest goes as it did so far; None if unknown.

        The pace is the time that workers spent on trials, over the trials that they did in it; of
        those that run, what was done up to their last report counts.
        """
        now, running = self._clock(), self.running.values()
        parts = [t.part - t.before for t in running]
        ran = self._worth or max(parts, default=0.0) >= TELLING
        if not ran or self.phase or self.finished == self.total:
            return None
        spent = self._spent + sum((t.heard - t.since) * t.share for t in running)
        pace = max(spent, 1e-9) / (self._worth + sum(parts))
        rest = [1 - min(1.0, t.part + (now - t.heard) * t.share / pace) for t in running]
        waiting = self.total - self.finished - len(running)
        workers = sum(t.share for t in running)
        workers += sum(now - t < IDLE_SECONDS for t in self._free.values())
        # near the end workers have nothing to do while the last trials run
        last = max((r / t.share for r, t in zip(rest, running, strict=True)), default=0.0)
        return pace * max((waiting + sum(rest)) / max(1, workers), last)


def score(metrics: Mapping[str, float], part: str) -> tuple[str, float] | None:
    """`accuracy` or `mse` of the test, validation or training data, and its value."""
    names = {name: f"{part}/{name}" for name in ("accuracy", "mse")}
    return next(((n, metrics[key]) for n, key in names.items() if key in metrics), None)


def shown(metric: str, value: float) -> str:
    """The value as it is printed."""
    return f"{value:.3f}" if metric == "accuracy" else f"{value:.4g}"
