"""Timing in turn: the ratio, with times that are made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from masksweep.sweeps.training import timing


def test_what_slows_both_for_a_while_is_not_in_the_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of five rounds on a machine that is four times slower."""
    rounds = [[0.002, 0.001], [0.008, 0.004], [0.002, 0.001], [0.008, 0.001], [0.008, 0.004]]
    monkeypatch.setattr(timing, "in_turn", lambda runs, number: rounds)
    program: Any = None
    found = timing.compare(program, program, None, None, None, 5)
    assert found.ratio == 2
    assert (found.step_ms, found.dense_step_ms) == (8, 1)
    assert found.shared(4) == timing.Speed(2, 0.25, 2, None, found.dense_to_dense)


class Machine:
    """A clock, and the time that the process has a core: what others take is only on the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = self.work = 0.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.clock)
        monkeypatch.setattr(timing.time, "process_time", lambda: self.work)

    def runs(self, step: float, waits: Sequence[float] = (), works: bool = True) -> timing.Run:
        """A step that takes so long, and what each of its first calls waits for a core."""
        left = list(waits)

        def run(steps: int) -> None:
            busy = 0.001 + steps * step  # a call takes time too
            self.work += busy if works else 0
            self.clock += busy + (left.pop(0) if left else 0)

        return run


@pytest.mark.parametrize("slow", [(0, 0), (0, 8), (8, 0), (8, 8)])
def test_a_machine_that_is_slow_while_stretches_are_laid_out_gives_the_same_ratio(
    monkeypatch: pytest.MonkeyPatch, slow: tuple[int, int]
) -> None:
    """A stretch of few steps is mostly the call: one trial's ratio was .28 so, and one's .03."""
    machine = Machine(monkeypatch)
    one, other = ([0.05] * n for n in slow)
    found = timing.in_turn([machine.runs(2e-5, one), machine.runs(1e-5, other)], 9)
    assert np.median([a / b for a, b in found]) == pytest.approx(2, rel=0.05)


def test_stretches_are_long_enough_however_long_a_core_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch)
    assert timing._enough(machine.runs(1e-4, [0.04] * 99)) in range(250, 301)
    assert timing._enough(machine.runs(5.0)) == 1
    # a device is at work, and not this process
    assert timing._enough(machine.runs(0.01, works=False)) == 3


def test_the_interval_of_nine_rounds_is_the_second_lowest_to_the_second_highest() -> None:
    ratios = [1.0, 1.1, 0.9, 1.2, 1.3, 9.9, 1.0, 1.1, 0.1]
    assert timing.interval(ratios) == (0.9, 1.3)
    assert timing.interval(ratios[:6]) == (0.9, 9.9)  # the whole range: 97 %
    for few in range(6):
        assert timing.interval(ratios[:few]) is None


@pytest.mark.parametrize(("rounds", "covers"), [(6, 0.969), (9, 0.961), (20, 0.959)])
def test_the_interval_covers_the_median_as_often_as_it_says(rounds: int, covers: float) -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        low, high = timing.interval(list(np.exp(rng.standard_normal(rounds) ** 3))) or (0, 0)
        inside += low <= 1 <= high
    assert inside / 1000 == pytest.approx(covers, abs=0.02)


@pytest.mark.parametrize(
    ("dense", "off"),
    [
        ([1.0, 0.8], 1.25),
        ([0.8, 1.0], 1.25),
        ([1.0, 1.1, 1.0, 1.1, 1.0], 1.0045),  # jitter, which the median of a ratio levels out
        ([1.0, 1.3, 1.2, 1.5], 1.25),
        ([1.0], None),
    ],
)
def test_a_dense_step_is_compared_with_itself_as_with_another(
    dense: list[float], off: float | None
) -> None:
    found = timing.steadiness(dense)
    assert found == off if off is None else found == pytest.approx(off, abs=1e-4)


def test_a_loaded_machine_is_a_tag() -> None:
    for off, tags in ((1.04, {"speed.noisy": "false"}), (1.06, {"speed.noisy": "true"})):
        assert timing.tags({"speed/dense_to_dense": off}) == tags
    assert timing.tags({}) == {}
