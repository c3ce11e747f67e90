"""Two strategies side by side: at which step their effective weights part, and by how much."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isnan

import numpy as np

from masksweep.strategies.base import Array, Strategy
from masksweep.strategies.core.audit import same
from masksweep.sweeps.training import setup
from masksweep.sweeps.training.loop import alone
from masksweep.sweeps.training.setup import Start


def compare(start: Start, reference: Strategy) -> dict[str, float]:
    """Train the trial's strategy and another one in step, and compare at every audited step.

    `path/parted`: 1 if their effective weights differed in any bit after any of these steps, else
    0; `path/parted_step`: the first such step, if there was one; `path/distance`: their largest
    difference at any of them, infinite if one was no number. XLA is used for both or for neither.
    """
    trial = start.trial
    jit = trial.jit and reference.xla
    trial = trial.model_copy(update={"train": trial.train.model_copy(update={"jit": jit})})
    other = replace(start, trial=trial.under(reference))
    pair = [alone(s) for s in (replace(start, trial=trial), other)]
    total = setup.schedule(trial, len(start.data.train[0]))[1]
    every, parted, distance = trial.audit.every, 0, 0.0
    for step in range(every, total + every, every):
        for loop in pair:
            loop.run(min(step, total))
        one, two = (loop.program.one.effective() for loop in pair)
        if not same(one, two):
            parted = parted or min(step, total)
            distance = max(distance, *(_far(one[n], two[n]) for n in one))
    found = {"path/parted": float(parted > 0), "path/distance": distance}
    return {**found, "path/parted_step": float(parted)} if parted else found


def _far(one: Array, other: Array) -> float:
    with np.errstate(invalid="ignore"):
        largest = float(np.abs(one - other).max())
    return inf if isnan(largest) else largest
