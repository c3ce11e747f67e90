"""Timing of steps: the ratio and its interval, with simulated times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from masksweep.sweeps.training import timing


def test_what_slows_both_for_a_while_is_not_in_the_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is four times slower in some rounds, and in one only for the first program."""
    rounds = [[0.002, 0.001], [0.008, 0.004], [0.002, 0.001], [0.008, 0.001], [0.008, 0.004]]
    monkeypatch.setattr(timing, "time_in_turn", lambda runs, number: rounds)
    program: Any = None
    speed = timing.compare(program, program, None, None, None, 5)
    assert speed.ratio == 2
    assert (speed.step_ms, speed.dense_step_ms) == (8, 1)
    assert speed.per_trial(4) == timing.Speed(2, 0.25, 2, None, speed.dense_to_dense)


class Machine:
    """Simulates a clock and a CPU clock: waiting for a core advances only the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = self.work = 0.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.clock)
        monkeypatch.setattr(timing.time, "process_time", lambda: self.work)

    def runs(self, step: float, waits: Sequence[float] = (), works: bool = True) -> timing.RunSteps:
        """A function that runs simulated steps.

        Args:
            step: Seconds of one step.
            waits: Seconds that each of the first calls waits for a core.
            works: Whether the step uses CPU time; a device works instead if not.
        """
        remaining_waits = list(waits)

        def run(steps: int) -> None:
            busy = 0.001 + steps * step  # the call itself takes 1 ms
            self.work += busy if works else 0
            self.clock += busy + (remaining_waits.pop(0) if remaining_waits else 0)

        return run


@pytest.mark.parametrize("slow", [(0, 0), (0, 8), (8, 0), (8, 8)])
def test_a_machine_that_is_slow_while_stretches_are_laid_out_gives_the_same_ratio(
    monkeypatch: pytest.MonkeyPatch, slow: tuple[int, int]
) -> None:
    """With too few steps a stretch measures the call: real trials had ratios of .28 and .03."""
    machine = Machine(monkeypatch)
    first_waits, second_waits = ([0.05] * n for n in slow)
    times = timing.time_in_turn(
        [machine.runs(2e-5, first_waits), machine.runs(1e-5, second_waits)], 9
    )
    assert np.median([a / b for a, b in times]) == pytest.approx(2, rel=0.05)


def test_stretches_are_long_enough_however_long_a_core_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch)
    assert timing._steps_per_stretch(machine.runs(1e-4, [0.04] * 99)) in range(250, 301)
    assert timing._steps_per_stretch(machine.runs(5.0)) == 1
    # a device works, not this process
    assert timing._steps_per_stretch(machine.runs(0.01, works=False)) == 3


def test_the_interval_of_nine_rounds_is_the_second_lowest_to_the_second_highest() -> None:
    ratios = [1.0, 1.1, 0.9, 1.2, 1.3, 9.9, 1.0, 1.1, 0.1]
    assert timing.median_interval(ratios) == (0.9, 1.3)
    assert timing.median_interval(ratios[:6]) == (0.9, 9.9)  # the whole range: 97 %
    for few in range(6):
        assert timing.median_interval(ratios[:few]) is None


@pytest.mark.parametrize(("rounds", "covers"), [(6, 0.969), (9, 0.961), (20, 0.959)])
def test_the_interval_covers_the_median_as_often_as_it_says(rounds: int, covers: float) -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        low, high = timing.median_interval(list(np.exp(rng.standard_normal(rounds) ** 3))) or (0, 0)
        inside += low <= 1 <= high
    assert inside / 1000 == pytest.approx(covers, abs=0.02)


@pytest.mark.parametrize(
    ("dense", "off"),
    [
        ([1.0, 0.8], 1.25),
        ([0.8, 1.0], 1.25),
        ([1.0, 1.1, 1.0, 1.1, 1.0], 1.0045),  # random variation, which the median removes
        ([1.0, 1.3, 1.2, 1.5], 1.25),
        ([1.0], None),
    ],
)
def test_a_dense_step_is_compared_with_itself_as_with_another(
    dense: list[float], off: float | None
) -> None:
    factor = timing.time_variation(dense)
    assert factor == off if off is None else factor == pytest.approx(off, abs=1e-4)


def test_a_loaded_machine_is_a_tag() -> None:
    for off, tags in ((1.04, {"speed.noisy": "false"}), (1.06, {"speed.noisy": "true"})):
        assert timing.noise_tag({"speed/dense_to_dense": off}) == tags
    assert timing.noise_tag({}) == {}
