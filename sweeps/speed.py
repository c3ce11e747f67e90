"""Timing in turn, in one process: what a step takes, as a ratio to the dense control."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, inf
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.packed import Packed
    from sweeps.program import Program

    Runs = Program | Packed

SECONDS = 0.03
"""Least length of one measured stretch."""

Run = Callable[[int], object]
"""Takes so many steps."""


@dataclass(frozen=True)
class Speed:
    """Medians over the rounds; audits are off."""

    step_ms: float
    dense_step_ms: float
    ratio: float
    """Of the rounds' own ratios: what slows the machine down for a while slows both."""

    def shared(self, among: int) -> Speed:
        """The part of one of so many."""
        return Speed(self.step_ms / among, self.dense_step_ms / among, self.ratio)


def compare(program: Runs, dense: Runs, x: Any, y: Any, order: Any, rounds: int) -> Speed:
    """Time both programs in turn on the given samples. Trains them further: results come first."""
    from sweeps.program import NEVER

    def steps(timed: Runs, number: int) -> None:
        timed.run(x, y, order, 0, number, NEVER, NEVER)

    found = in_turn([partial(steps, timed) for timed in (program, dense)], rounds)
    step, control = (1000 * median(times) for times in zip(*found, strict=True))
    return Speed(step, control, median(own / other for own, other in found))


def in_turn(runs: Sequence[Run], rounds: int, budget_s: float = inf) -> list[list[float]]:
    """Seconds a step of each, round by round: a stretch of one, a stretch of the next, and again.

    What compiles or warms up is not in it. After the third round, ends when the budget is spent.
    """
    counts = [_enough(run) for run in runs]
    if max(counts) < 2 * min(counts):  # calls cost time too: as many steps in each, if alike
        counts = [max(counts)] * len(counts)
    pairs = list(zip(runs, counts, strict=True))
    found: list[list[float]] = []
    began = time.perf_counter()
    while len(found) < rounds:
        found.append([_stretch(run, steps) for run, steps in pairs])
        if len(found) >= 3 and time.perf_counter() - began > budget_s:
            break
    return found


def _stretch(run: Run, steps: int) -> float:
    tic = time.perf_counter()
    run(steps)
    return (time.perf_counter() - tic) / steps


def _enough(run: Run) -> int:
    """Steps of a stretch that is long enough to be measured."""
    run(1)
    steps = 1
    while (step := _stretch(run, steps)) * steps < SECONDS / 4:
        steps *= 4
    # the shorter of two: a hiccup of the machine is not the step's time
    return 1 if step > 10 * SECONDS else ceil(SECONDS / min(step, _stretch(run, steps)))
