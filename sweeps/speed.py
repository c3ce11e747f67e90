"""The time of a training step, as a ratio to the dense control in the same process, in turn."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

from sweeps.program import NEVER, Program

SECONDS = 0.03
"""Wanted length of one measured stretch."""


@dataclass(frozen=True)
class Speed:
    """Medians over the rounds; audits are off."""

    step_ms: float
    dense_step_ms: float

    @property
    def ratio(self) -> float:
        return self.step_ms / self.dense_step_ms


def compare(program: Program, dense: Program, x: Any, y: Any, order: Any, rounds: int) -> Speed:
    """Time both programs in turn on the given samples. Trains them further: results come first."""

    def stretch(timed: Program, steps: int) -> float:
        tic = time.perf_counter()
        timed.run(x, y, order, 0, steps, NEVER, NEVER)
        return (time.perf_counter() - tic) / steps

    pair = (program, dense)
    for timed in pair:
        stretch(timed, 4)
    probes = [min(stretch(timed, 16) for _ in range(3)) for timed in pair]
    counts = [max(8, int(SECONDS / probe)) for probe in probes]
    if max(counts) < 2 * min(counts):  # calls cost time too: as many steps in each, if alike
        counts = [max(counts)] * 2
    found = [[stretch(t, n) for t, n in zip(pair, counts, strict=True)] for _ in range(rounds)]
    step, control = (1000 * median(times) for times in zip(*found, strict=True))
    return Speed(step, control)
