"""Measures the time of a training step, as a ratio to the dense control in the same process."""

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
    from masksweep.sweeps.training.vectorized import PackedProgram

    Runs = Program | PackedProgram

CONFIDENCE = 0.95
"""Confidence level of `median_interval`."""
NOISY_FACTOR = 1.05
"""If the dense step's time differs from itself by more than this factor (see `time_variation`), the
machine is too loaded to measure a speed."""
MIN_STRETCH_SECONDS = 0.03
"""Smallest duration of one measured stretch of steps."""
MAX_ATTEMPTS = 6
"""Largest number of attempts to time the rounds until all stretches are long enough."""

RunSteps = Callable[[int], object]
"""Runs the given number of steps."""


@dataclass(frozen=True)
class Speed:
    """Times of a training step without audits: medians over the rounds."""

    step_ms: float
    """Milliseconds of one step."""
    dense_step_ms: float
    """Milliseconds of one step of the dense control."""
    ratio: float
    """Median of the rounds' ratios. A load on the machine slows both programs of a round alike."""
    limits: tuple[float, float] | None
    """95 % interval of the ratio; see `median_interval`."""
    dense_to_dense: float | None
    """How much the dense step's time varies; see `time_variation`."""

    def per_trial(self, trial_count: int) -> Speed:
        """The speed of one trial in a pack of `trial_count` trials."""
        step_ms, dense_step_ms = self.step_ms / trial_count, self.dense_step_ms / trial_count
        return replace(self, step_ms=step_ms, dense_step_ms=dense_step_ms)


def compare(program: Runs, dense: Runs, x: Any, y: Any, order: Any, rounds: int) -> Speed:
    """Times two programs in turn on the same samples.

    This trains both further, so compute all results before.

    Args:
        program: The program to time.
        dense: The dense control's program.
        x: Inputs of all samples.
        y: Targets of all samples.
        order: Indices of the samples in the batches of an epoch, as `StepLoop.run` takes them.
        rounds: Number of rounds; each has one stretch of steps of each program.
    """
    from masksweep.sweeps.training.steps import Steps

    def steps(timed_program: Runs, number: int) -> None:
        timed_program.run(x, y, order, Steps(0, number))

    runs = [partial(steps, timed_program) for timed_program in (program, dense)]
    times = time_in_turn(runs, rounds)
    program_times, dense_times = zip(*times, strict=True)
    ratios = [a / b for a, b in times]
    return Speed(
        1000 * median(program_times),
        1000 * median(dense_times),
        median(ratios),
        median_interval(ratios),
        time_variation(dense_times),
    )


def median_interval(ratios: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the median of rounds' ratios, by order statistics (binomial).

    It assumes nothing about the distribution of the ratios. With nine rounds it goes from the
    second lowest to the second highest ratio (96 %).

    Args:
        ratios: The ratio of each round.

    Returns:
        (low, high), or None with fewer than six rounds: even their whole range covers less than
        95 %.

    Example:
        >>> median_interval([1.0, 1.1, 0.9, 1.2, 1.3, 9.9, 1.0, 1.1, 0.1])
        (0.9, 1.3)

    Reference:
        Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2.
    """
    from scipy import stats

    if not ratios:
        return None
    # only the interval is used, so the tested hypothesis (`q`) does not matter
    limits = stats.quantile_test(ratios, q=1.0, p=0.5).confidence_interval(CONFIDENCE)
    return None if isnan(limits.low) else (float(limits.low), float(limits.high))


def time_variation(dense: Sequence[float]) -> float | None:
    """The factor by which the dense step's time differs from itself: the error of a speed ratio.

    It is the median of the ratios between each dense stretch and the next one, computed as the
    ratio of two programs is. So it estimates the error of such a ratio. Two single stretches differ
    more: by 5 % and more even on a quiet machine. It needs no further stretches.

    Args:
        dense: Seconds of a dense step in each round.

    Returns:
        A factor of at least 1; None for a single round.
    """
    ratios = [a / b for a, b in pairwise(dense)]
    if not ratios:
        return None
    return max(median(ratios), 1 / median(ratios))


def noise_tag(metrics: Mapping[str, float]) -> dict[str, str]:
    """The tag `speed.noisy`: whether the machine was too loaded to time a step.

    Args:
        metrics: The trial's metrics; without timing there is no tag.
    """
    factor = metrics.get("speed/dense_to_dense")
    return {} if factor is None else {"speed.noisy": str(factor > NOISY_FACTOR).lower()}


def time_in_turn(runs: Sequence[RunSteps], rounds: int, budget_s: float = inf) -> list[list[float]]:
    """Times several runs in turn: in each round one stretch of steps of each run.

    The time to compile and to warm up is not counted. A stretch must be so long that the overhead
    of the call is negligible. On a loaded machine, a step may seem much longer than it is when the
    number of steps is chosen. So the shortest time of the rounds is checked, and the rounds are
    timed again with more steps if the stretches were too short.

    Args:
        runs: Functions that run a number of steps.
        rounds: Number of rounds.
        budget_s: Seconds after which no further round starts, but at least three rounds are done.

    Returns:
        For each round, the seconds of one step of each run.
    """
    step_counts = _equalize([_steps_per_stretch(run) for run in runs])
    for _ in range(MAX_ATTEMPTS):
        measured = _time_rounds(list(zip(runs, step_counts, strict=True)), rounds, budget_s)
        shortest_steps = [min(times) for times in zip(*measured, strict=True)]
        wanted_counts = [ceil(MIN_STRETCH_SECONDS / step) for step in shortest_steps]
        if all(count >= steps / 2 for count, steps in zip(step_counts, wanted_counts, strict=True)):
            break
        pairs = zip(step_counts, wanted_counts, strict=True)
        step_counts = _equalize([max(pair) for pair in pairs])
    return measured


def _equalize(counts: list[int]) -> list[int]:
    """The same number of steps for all runs, unless they differ by a factor of 2 or more.

    A call costs time too, and that time should be the same share of each stretch.
    """
    return [max(counts)] * len(counts) if max(counts) < 2 * min(counts) else counts


def _time_rounds(
    pairs: Sequence[tuple[RunSteps, int]], rounds: int, budget_s: float
) -> list[list[float]]:
    times: list[list[float]] = []
    began = time.perf_counter()
    while len(times) < rounds:
        times.append([_time_stretch(run, steps) for run, steps in pairs])
        if len(times) >= 3 and time.perf_counter() - began > budget_s:
            break
    return times


def _time_stretch(run: RunSteps, steps: int) -> float:
    tic = time.perf_counter()
    run(steps)
    return (time.perf_counter() - tic) / steps


def _steps_per_stretch(run: RunSteps) -> int:
    """Number of steps of a stretch that takes at least `MIN_STRETCH_SECONDS`.

    It is computed from the process's CPU time: on a loaded machine, most of a short stretch may be
    time in which the process waits for a core, and a step would seem much longer than it is. If the
    process does little itself and waits for a device, the clock is used.
    """
    run(1)
    steps = 1
    while True:
        began, worked = time.perf_counter(), time.process_time()
        run(steps)
        clock, work = time.perf_counter() - began, time.process_time() - worked
        if work >= MIN_STRETCH_SECONDS / 4:
            return ceil(MIN_STRETCH_SECONDS * steps / work)
        if clock > 10 * MIN_STRETCH_SECONDS:
            return ceil(MIN_STRETCH_SECONDS * steps / clock)
        steps *= 4
