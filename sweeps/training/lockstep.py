"""Compares two strategies step by step: when their effective weights differ, and by how much."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isnan

import numpy as np

from masksweep.strategies.base import Strategy
from masksweep.strategies.core.audit import same_weights
from masksweep.strategies.plan import Array
from masksweep.sweeps.training.loop import single_trial_loop
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.step_counts import step_counts


def compare(start: TrialStart, reference: Strategy) -> dict[str, float]:
    """Trains the trial under its own strategy and under another, and compares the weights.

    The effective weights are compared after every audited step. XLA is used for both trainings or
    for neither, so that the compiler makes no difference.

    Args:
        start: The start of the trial.
        reference: The other strategy.

    Returns:
        `path/parted`: 1 if the weights differed in any bit after any of these steps, else 0.
        `path/parted_step`: Number of the first such step; left out if there was none.
        `path/distance`: Largest absolute difference after any of these steps; infinite if a
        weight was NaN.
    """
    trial = start.trial
    jit = trial.jit and reference.xla
    trial = trial.model_copy(update={"train": trial.train.model_copy(update={"jit": jit})})
    reference_start = replace(start, trial=trial.with_strategy(reference))
    loops = [single_trial_loop(s) for s in (replace(start, trial=trial), reference_start)]
    total = step_counts(trial, start.data.samples)[1]
    interval, parted_step, distance = trial.audit.every, 0, 0.0
    for step in range(interval, total + interval, interval):
        for loop in loops:
            loop.run(min(step, total))
        first, second = (loop.program.single_program.effective() for loop in loops)
        if not same_weights(first, second):
            parted_step = parted_step or min(step, total)
            differences = (_largest_difference(first[name], second[name]) for name in first)
            distance = max(distance, *differences)
    metrics = {"path/parted": float(parted_step > 0), "path/distance": distance}
    return {**metrics, "path/parted_step": float(parted_step)} if parted_step else metrics


def _largest_difference(first: Array, second: Array) -> float:
    with np.errstate(invalid="ignore"):
        largest = float(np.abs(first - second).max())
    return inf if isnan(largest) else largest
