"""Two strategies side by side: at which step their effective weights part, and by how much."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from strategies.audit import bits
from strategies.base import Strategy
from sweeps import prepare
from sweeps.course import Course
from sweeps.prepare import Start


def compare(start: Start, reference: Strategy) -> dict[str, float]:
    """Train the trial's strategy and another one in step, and compare at every audited step.

    `path/parted_step`: the first of these steps after which the effective weights differ in any
    bit; left out if they never do. `path/distance`: their largest difference at any of them.
    """
    trial = start.trial
    other = replace(start, trial=trial.under(reference))
    # a network of its own: a program keeps the model that it was made of
    other = replace(other, model=prepare.build_model(trial, start.data))
    pair = [Course(s, prepare.program_for(s)) for s in (start, other)]
    total = prepare.schedule(trial, len(start.data.train[0]))[1]
    every = trial.audit.every
    found: dict[str, float] = {}
    distance = 0.0
    for step in range(every, total + every, every):
        for course in pair:
            course.run(min(step, total))
        one, two = (course.program.effective() for course in pair)
        if any((bits(one[n]) != bits(two[n])).any() for n in one):
            found.setdefault("path/parted_step", float(min(step, total)))
            distance = max(distance, *(float(np.abs(one[n] - two[n]).max()) for n in one))
    return {**found, "path/distance": distance}
