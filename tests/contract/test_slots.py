"""Tests of the optimizer slots at masked entries: moments and averages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
from keras import optimizers

from masksweep.strategies.core.audit import violations
from masksweep.strategies.core.slots import slot_leak
from masksweep.strategies.testing.documented import CASES
from masksweep.strategies.testing.networks import network
from masksweep.strategies.testing.strategy_checks import AVERAGING
from masksweep.strategies.testing.trial import Trial

KEEPING: dict[str, Callable[[], Any]] = {
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "accumulating": lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "decaying": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "adagrad": lambda: optimizers.Adagrad(0.1),
    "adadelta": lambda: optimizers.Adadelta(1.0),
    "rmsprop": lambda: optimizers.RMSprop(0.01, momentum=0.9, centered=True),
    "ftrl": lambda: optimizers.Ftrl(0.1),
    "lion": lambda: optimizers.Lion(0.01),
    "lamb": lambda: optimizers.Lamb(0.01),
    "muon": lambda: optimizers.Muon(0.01),
    "wrapped": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.01)),
}


def trial(case: str, optimizer: keras.optimizers.Optimizer) -> Trial:
    model = network()
    held = "zero" if "constant" in CASES[case].refuses else "constant"
    plan = CASES[case].plan(model, held)
    return Trial(CASES[case].strategy, model, plan, optimizer, eager=True)


@pytest.mark.parametrize("optimizer", KEEPING)
def test_projection_leaves_moments_and_hard_mask_clears_them(optimizer: str) -> None:
    projected, cleared, masked = (
        trial(c, KEEPING[optimizer]()) for c in ("projection", "hard_mask", "weight_mask")
    )
    assert slot_leak(projected.training) == 0
    for _ in range(3):
        assert violations(masked.end(1), masked.plan) == (0, 0.0)
        assert violations(projected.end(1), projected.plan) == (0, 0.0)
        assert violations(cleared.end(1), cleared.plan) == (0, 0.0)
        assert slot_leak(cleared.training) == 0
    assert slot_leak(projected.training) > 0


@pytest.mark.parametrize("case", ["hard_mask", "projection"])
def test_the_average_of_a_held_entry_is_its_held_value(case: str) -> None:
    """Keras may put the averages in the place of the weights, as SwapEMAWeights does."""
    averaged = trial(case, AVERAGING["at the end"]())
    averaged.end(3)
    (masked,) = averaged.training.masked.values()
    slots = averaged.training.slots[id(masked.value)]
    (average,) = (slot.numpy() for slot, _ in slots if slot.name.endswith("_average"))
    mask = masked.kept.numpy()
    assert (average[~mask] == masked.held.numpy()[~mask]).all()
    assert (average[mask] != masked.value.numpy()[mask]).all()


def test_averages_of_the_control_leak() -> None:
    averaged = trial("init_only", AVERAGING["at the end"]())
    averaged.end(5)
    averaged.training.finalize()
    assert violations(averaged.weights(), averaged.plan)[0] > 0
