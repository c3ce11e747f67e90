"""Timing in turn, in one process: what a step takes, as a ratio to the dense control."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import ceil, inf, isnan
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from masksweep.sweeps.training.program import Program
    from masksweep.sweeps.training.vectorized import Packed

    Runs = Program | Packed

CONFIDENCE = 0.95
NOISY = 1.05
"""Where a dense step is off beside itself by more than this factor, the machine is too loaded to
say how fast anything is."""
SECONDS = 0.03
"""Least length of one measured stretch."""
TRIES = 6
"""How often the rounds are timed at most, until their stretches are long enough."""

Run = Callable[[int], object]
"""Takes so many steps."""


@dataclass(frozen=True)
class Speed:
    """Medians over the rounds; audits are off."""

    step_ms: float
    dense_step_ms: float
    ratio: float
    """Of the rounds' own ratios: what slows the machine down for a while slows both."""
    limits: tuple[float, float] | None
    """`interval` of the ratio."""
    dense_to_dense: float | None
    """`steadiness` of the dense steps."""

    def shared(self, among: int) -> Speed:
        """The part of one of so many."""
        return replace(self, step_ms=self.step_ms / among, dense_step_ms=self.dense_step_ms / among)


def compare(program: Runs, dense: Runs, x: Any, y: Any, order: Any, rounds: int) -> Speed:
    """Time both programs in turn on the given samples. Trains them further: results come first."""
    from masksweep.sweeps.training.steps import Steps

    def steps(timed: Runs, number: int) -> None:
        timed.run(x, y, order, Steps(0, number))

    found = in_turn([partial(steps, timed) for timed in (program, dense)], rounds)
    own, control = zip(*found, strict=True)
    ratios = [a / b for a, b in found]
    return Speed(
        1000 * median(own),
        1000 * median(control),
        median(ratios),
        interval(ratios),
        steadiness(control),
    )


def interval(ratios: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the median of rounds' ratios, by order statistics (binomial).

    It asks nothing of their distribution. Of nine rounds it is the second lowest to the second
    highest (96 %); of fewer than six, even the whole range covers less than 95 %: None.

    Args:
        ratios: One for each round.

    Example:
        >>> interval([1.0, 1.1, 0.9, 1.2, 1.3, 9.9, 1.0, 1.1, 0.1])
        (0.9, 1.3)

    Reference:
        Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2.
    """
    from scipy import stats

    if not ratios:
        return None
    # the hypothesis that is tested along with it does not matter here
    found = stats.quantile_test(ratios, q=1.0, p=0.5).confidence_interval(CONFIDENCE)
    return None if isnan(found.low) else (float(found.low), float(found.high))


def steadiness(dense: Sequence[float]) -> float | None:
    """By what factor a dense step is off beside itself, 1 or more; None for a single round.

    It is measured as the ratio of two programs is: the median over the rounds of a stretch to the
    next one. So it says how far off such a ratio may be, and not how far two single stretches lie
    apart, which is 5 % and more on a quiet machine too. Between a round's dense stretch and the
    next round's lies one stretch of the other program, so it costs no further stretch.
    """
    ratios = [a / b for a, b in pairwise(dense)]
    if not ratios:
        return None
    return max(median(ratios), 1 / median(ratios))


def tags(metrics: Mapping[str, float]) -> dict[str, str]:
    """Whether the machine was too loaded to time a step, of a trial with these metrics."""
    found = metrics.get("speed/dense_to_dense")
    return {} if found is None else {"speed.noisy": str(found > NOISY).lower()}


def in_turn(runs: Sequence[Run], rounds: int, budget_s: float = inf) -> list[list[float]]:
    """Seconds a step of each, round by round: a stretch of one, a stretch of the next, and again.

    What compiles or warms up is not in it. After the third round, ends when the budget is spent.

    A stretch must be long enough for the call itself not to count. On a loaded machine a step may
    seem far longer than it is when the stretches are laid out; the shortest of the rounds tells,
    and they are timed again with more steps.
    """
    counts = _alike([_enough(run) for run in runs])
    for _ in range(TRIES):
        found = _rounds(list(zip(runs, counts, strict=True)), rounds, budget_s)
        shortest = [min(times) for times in zip(*found, strict=True)]
        wanted = [ceil(SECONDS / step) for step in shortest]
        if all(count >= steps / 2 for count, steps in zip(counts, wanted, strict=True)):
            break
        counts = _alike([max(pair) for pair in zip(counts, wanted, strict=True)])
    return found


def _alike(counts: list[int]) -> list[int]:
    """As many steps in each stretch, if they are of like lengths: calls cost time too."""
    return [max(counts)] * len(counts) if max(counts) < 2 * min(counts) else counts


def _rounds(pairs: Sequence[tuple[Run, int]], rounds: int, budget_s: float) -> list[list[float]]:
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
    """Steps of a stretch that is long enough to be measured.

    By the processor's time: on a loaded machine most of a short stretch may be waiting for a core,
    and a step would seem far longer than it is. By the clock where it is the device that is waited
    for.
    """
    run(1)
    steps = 1
    while True:
        began, worked = time.perf_counter(), time.process_time()
        run(steps)
        clock, work = time.perf_counter() - began, time.process_time() - worked
        if work >= SECONDS / 4:
            return ceil(SECONDS * steps / work)
        if clock > 10 * SECONDS:
            return ceil(SECONDS * steps / clock)
        steps *= 4
