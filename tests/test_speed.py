"""Timing in turn: the ratio, with times that are made up."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps import speed


def test_what_slows_both_for_a_while_is_not_in_the_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of five rounds on a machine that is four times slower."""
    rounds = [[0.002, 0.001], [0.008, 0.004], [0.002, 0.001], [0.008, 0.001], [0.008, 0.004]]
    monkeypatch.setattr(speed, "in_turn", lambda runs, number: rounds)
    program: Any = None
    found = speed.compare(program, program, None, None, None, 5)
    assert found.ratio == 2
    assert (found.step_ms, found.dense_step_ms) == (8, 1)
    assert found.shared(4) == speed.Speed(2, 0.25, 2)
