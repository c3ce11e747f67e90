"""One trial: train once under one strategy, audit what it held. No Ray, no MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sweeps import prepare
from sweeps.config import Trial
from sweeps.memory import Peak

Emit = Callable[[int, Mapping[str, float]], None]
"""(epoch from 1, metrics by name): called at the end of each epoch but the last."""
CHUNK_SECONDS = 2.0


@dataclass(frozen=True)
class TrialResult:
    """What one trial found."""

    status: Literal["ok", "skipped"]
    reason: str = ""
    """Why it was skipped."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Final metrics by their names in the house."""
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    """Content by file name."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Name, digest and shapes of the training data."""
    epochs: int = 0


def run(trial: Trial, emit: Emit = lambda epoch, metrics: None) -> TrialResult:
    """Run one trial in this process, for which `prepare.prepare_process` was called.

    A plan that the strategy refuses is not approximated: the result is `skipped`, with the reason.
    Raises `Invalid` where the plan cannot be made.
    """
    import tensorflow as tf

    from sweeps import environment, measure
    from sweeps.program import Progress

    peak, start = Peak(), prepare.start(trial)
    if reason := trial.strategy.refuses(start.plan):
        return TrialResult("skipped", reason)
    program = prepare.program_for(start)
    compiled, before = program.compile_seconds, measure.snapshot(start, program)

    samples = len(start.data.train[0])
    x, y = (tf.constant(a) for a in start.data.train)
    epoch, total = prepare.schedule(trial, samples)
    found, number, chunk = Progress(), 0, 64
    while found.steps < total:
        order = prepare.order(trial, samples, number)
        end, part = min(total, found.steps + epoch), Progress()
        while found.steps < end:
            steps, tic = min(chunk, end - found.steps), time.perf_counter()
            new = program.run(x, y, order, found.steps, steps, trial.audit.every, total)
            chunk = 1 + int(steps * CHUNK_SECONDS / (time.perf_counter() - tic))
            found, part = found + new, part + new
        number += 1
        if found.steps < total:  # the last epoch's metrics are the result's own
            emit(number, measure.epoch(start, program, part))
    program.training.finalize()
    largest = peak.bytes()

    integrity, artifacts, sha256 = measure.integrity(start, program, before, found)
    metrics = measure.epoch(start, program, part) | measure.scores(start, program, "test")
    metrics |= integrity | measure.costs(start, program)
    metrics["speed/compile_s"] = program.compile_seconds - compiled
    metrics |= measure.step_time(start, program, (x, y, order))
    if largest is not None:
        metrics["memory/peak_bytes"] = largest
    return TrialResult(
        "ok",
        metrics=metrics,
        tags={"trial.weights_sha256": sha256},
        artifacts=artifacts | {"environment.txt": environment.describe().encode()},
        data=start.data.described(),
        epochs=number,
    )
