"""State of a running sweep: running trials, counts, best scores, and the estimated time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from threading import RLock
from typing import Protocol

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.score_metric import ScoreMetric

IDLE_SECONDS = 5.0
"""A worker that has had no trial for longer than this is not counted."""
MIN_FRACTION_FOR_ESTIMATE = 0.1
"""The part of the first trial that must be done before the time left is estimated from it."""


class TrialProgress(Protocol):
    """Progress of a running trial.

    `steps` of `total` steps are done; `epoch` is the current epoch, from 1.
    """

    @property
    def steps(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics of the epoch by name; empty unless an epoch has just ended."""

    @property
    def note(self) -> str:
        """A message for the user, as `resumed from step 1200`; usually empty."""


@dataclass
class RunningTrial:
    """A trial that runs on a worker.

    Times are in seconds of the tally's clock. `fraction_done` and `fraction_before` are fractions
    of the whole trial.
    """

    name: str
    worker: int
    started_at: float
    """Time from which the worker's time counts for this trial."""
    reported_at: float
    """Time of the last report."""
    worker_share: float = 1.0
    """The part of the worker that this trial has; less than 1 if the worker runs several side by
    side."""
    fraction_done: float = 0.0
    """Fraction of the trial that was done at the last report."""
    fraction_before: float = 0.0
    """Fraction of the trial that an earlier attempt had done."""
    epoch: int = 0
    score: str = ""
    """The last score, as `validation 0.912`."""


class Tally:
    """The counts, running trials and best scores of a sweep.

    It keeps nothing of a trial that has ended except in the counts and best scores. One thread
    changes the tally and another one draws it, so both hold `lock`.

    Args:
        total: Number of trials in the sweep.
        done: Number of trials that had finished before this run.
        clock: Returns the time in seconds.
    """

    def __init__(self, total: int, done: int, clock: Callable[[], float] = time.monotonic) -> None:
        # reentrant: a signal handler may print, and so draw, while its thread holds the lock
        self.lock = RLock()
        self.total, self.done, self.ended = total, done, 0
        self.phase = "Starting the workers"
        self.waiting, self.away_s = 0, 0.0
        """Number of records that wait on disk, and seconds since the store was found to be away."""
        self.running: dict[str, RunningTrial] = {}
        """The running trials by id."""
        self.counts: Counter[str] = Counter()
        """Number of trials that were `skipped`, `failed` and `retried`."""
        self.best: dict[ScoreMetric, dict[str, float]] = {}
        """Best value of the metric that the trials are compared by, then by strategy."""
        self._clock, self._since = clock, clock()
        self._idle_since: dict[int, float] = {}
        """Time since which a worker has had no trial, by its number."""
        self._worker_seconds = self._trials_done = 0.0
        """Worker seconds spent on trials that have ended, and the number of trials done in them."""

    @property
    def finished(self) -> int:
        """Number of trials of the sweep that need no more work."""
        return self.done + self.ended

    @property
    def seconds_passed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._since

    def start(self, key: str, name: str, worker: int, share: float = 1.0) -> None:
        """Adds a trial that was given to a worker, or to a share of it."""
        self.phase = ""
        now, idle_since = self._clock(), self._idle_since.pop(worker, None)
        # the time that a worker needs between two trials is part of the cost of a trial
        since = now if idle_since is None or now - idle_since > IDLE_SECONDS else idle_since
        self.running[key] = RunningTrial(name, worker, since, since, share)

    def report(self, key: str, report: TrialProgress) -> RunningTrial:
        """Updates a running trial from its report, and returns the trial."""
        trial = self.running[key]
        fraction_done = min(1.0, report.steps / report.total) if report.total else 0.0
        if report.note and not trial.fraction_done:
            trial.fraction_before = fraction_done
        trial.reported_at, trial.epoch = self._clock(), report.epoch
        trial.fraction_done = fraction_done
        for data in ("validation", "train"):
            if last_score := find_score(report.metrics, data):
                trial.score = f"{data} {format_score(*last_score)}"
                break
        return trial

    def retry(self, key: str) -> RunningTrial:
        """Removes a trial whose worker was lost, and returns it; it will be started again."""
        self.counts["retried"] += 1
        return self.running.pop(key)

    def end(self, outcome: Outcome) -> None:
        """Counts a trial that has ended, or was skipped without a start."""
        trial, now = self.running.pop(outcome.trial.id, None), self._clock()
        self.ended += 1
        if trial:
            self._idle_since[trial.worker] = now
        if outcome.status != "ok":
            self.counts[outcome.status] += 1
        if trial and outcome.status != "skipped":
            self._worker_seconds += (now - trial.started_at) * trial.worker_share
            self._trials_done += 1 - trial.fraction_before
        metric, strategy = outcome.trial.score_metric, outcome.trial.strategy.name
        value = outcome.result.metrics.get(metric.key) if outcome.status == "ok" else None
        if value is not None and isfinite(value):
            best = self.best.setdefault(metric, {})
            better = max if metric.sign > 0 else min
            best[strategy] = better(value, best.get(strategy, value))

    def begin_phase(self, phase: str) -> None:
        """Begins a phase after the last trial; no trial runs any more."""
        self.phase = phase
        self.running.clear()

    def seconds_left(self) -> float | None:
        """Seconds until the last trial ends, at the pace so far; None if unknown.

        The pace is in worker seconds per trial: the time that workers have spent on trials, divided
        by the number of trials done in that time. A running trial counts with the part that was
        done at its last report.
        """
        now, running = self._clock(), self.running.values()
        parts = [t.fraction_done - t.fraction_before for t in running]
        known = self._trials_done or max(parts, default=0.0) >= MIN_FRACTION_FOR_ESTIMATE
        if not known or self.phase or self.finished == self.total:
            return None
        spent = self._worker_seconds + sum(
            (t.reported_at - t.started_at) * t.worker_share for t in running
        )
        pace = max(spent, 1e-9) / (self._trials_done + sum(parts))
        remaining = [
            1 - min(1.0, t.fraction_done + (now - t.reported_at) * t.worker_share / pace)
            for t in running
        ]
        waiting = self.total - self.finished - len(running)
        workers = sum(t.worker_share for t in running)
        workers += sum(now - t < IDLE_SECONDS for t in self._idle_since.values())
        # near the end some workers are idle: the last trial to finish decides then
        last = 0.0
        for part, trial in zip(remaining, running, strict=True):
            last = max(last, part / trial.worker_share)
        return pace * max((waiting + sum(remaining)) / max(1, workers), last)


def find_score(metrics: Mapping[str, float], part: str) -> tuple[str, float] | None:
    """Returns the name of a score, `accuracy` or `mse`, and its value; None if there is none.

    Args:
        metrics: Metrics by name, as `test/accuracy`.
        part: Part of the data: `test`, `validation` or `train`.
    """
    names = {name: f"{part}/{name}" for name in ("accuracy", "mse")}
    return next(((n, metrics[key]) for n, key in names.items() if key in metrics), None)


def format_score(metric: str, value: float) -> str:
    """Returns the value of a score as text."""
    return f"{value:.3f}" if metric.endswith("accuracy") else f"{value:.4g}"
