"""Tests that the cause of each leak is found: the stage of a step that moves a masked entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest

from masksweep.strategies import Strategy
from masksweep.strategies.core.leak_cause import causes, causes_of_finalizing
from masksweep.strategies.gradient_mask import GradientMask
from masksweep.strategies.hard_mask import HardMask
from masksweep.strategies.init_only import InitOnly
from masksweep.strategies.projection import Projection
from masksweep.strategies.testing import Case
from masksweep.strategies.testing.networks import SITUATIONS, network
from masksweep.strategies.testing.trial import Trial
from masksweep.strategies.weight_mask import WeightMask

optimizers = keras.optimizers


def begin(strategy: Strategy, optimizer: Any, held: str = "constant", model: Any = None) -> Trial:
    model = model or network()
    return Trial(strategy, model, Case(strategy).plan(model, held), optimizer)


LEAKS: dict[str, tuple[Strategy, Callable[[], Any], list[str]]] = {
    "set once": (InitOnly(), lambda: optimizers.SGD(0.1), ["gradient"]),
    "set once, decayed": (
        InitOnly(),
        lambda: optimizers.AdamW(0.1, weight_decay=0.1),
        ["decay"],  # weight decay is the first stage, and changes each entry
    ),
    "decay": (GradientMask(), lambda: optimizers.SGD(0.1, weight_decay=0.1), ["decay"]),
    "Ftrl": (GradientMask(), lambda: optimizers.Ftrl(0.1), ["update"]),
    "Muon": (GradientMask(), lambda: optimizers.Muon(0.1, weight_decay=None), ["update"]),
    "overwriting EMA": (
        GradientMask(),
        lambda: optimizers.SGD(0.1, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=1),
        [],  # in the first step the average is the weight itself
    ),
}


@pytest.mark.parametrize("name", LEAKS)
def test_the_first_step_is_explained(name: str) -> None:
    strategy, optimizer, expected = LEAKS[name]
    trial = begin(strategy, optimizer())
    assert causes(trial.training, trial.x, trial.y) == expected


def test_a_constraint_is_named() -> None:
    model = SITUATIONS["constrained"].model()
    trial = begin(GradientMask(), optimizers.SGD(0.1), model=model)
    assert causes(trial.training, trial.x, trial.y) == ["constraint"]


def test_the_sign_of_a_product_is_named() -> None:
    trial = begin(WeightMask(form="product"), optimizers.SGD(0.1), "zero")
    assert causes(trial.training, trial.x, trial.y) == ["form"]


def test_moments_of_earlier_steps_are_named() -> None:
    trial = begin(GradientMask(), optimizers.Adam(0.1), "zero")
    trial.end(3)
    trial.training.switch(Case(GradientMask()).plan(network(), seed=1))
    assert causes(trial.training, trial.x, trial.y) == ["slots"]


def test_an_average_that_is_written_back_is_named() -> None:
    trial = begin(GradientMask(), optimizers.SGD(0.1, use_ema=True, ema_momentum=0.7), "zero")
    trial.end(3)
    trial.training.switch(Case(GradientMask()).plan(network(), seed=1))
    assert causes_of_finalizing(trial.training) == ["EMA"]


def test_the_end_is_not_blamed_for_what_differed_before() -> None:
    trial = begin(InitOnly(), optimizers.SGD(0.1))
    trial.end(3)
    assert causes_of_finalizing(trial.training) == []


@pytest.mark.parametrize("strategy", [Projection(), HardMask(), WeightMask()])
def test_what_is_held_at_the_end_of_the_step_has_no_cause(strategy: Strategy) -> None:
    trial = begin(strategy, optimizers.AdamW(0.1, weight_decay=0.1))
    assert causes(trial.training, trial.x, trial.y) == []
    assert causes_of_finalizing(trial.training) == []


def test_looking_changes_no_bit_and_leaves_nothing_behind() -> None:
    observed, plain = (begin(GradientMask(), optimizers.Adam(0.1)) for _ in range(2))
    causes(observed.training, observed.x, observed.y)
    plain.training.step(plain.x, plain.y)
    for first, second in zip(observed.weights().values(), plain.weights().values(), strict=True):
        assert first.tobytes() == second.tobytes()
    assert not {"apply", "_apply_weight_decay", "_backend_update_step"} & set(
        vars(observed.training.optimizer)
    )
