"""The FLOPs that a trial records."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from masksweep.strategies import MaskedWeight, Plan, Random
from masksweep.strategies.core.weights import describe, make_plan, values
from masksweep.strategies.held.init import Init
from masksweep.strategies.held.zero import Zero
from masksweep.sweeps.components.models import MODELS
from masksweep.sweeps.training.flops import flops_metrics


def plan_of(model: Any, held: Any) -> Plan:
    masks = Random(0.9).from_weights
    described, initial = describe(model), values(model)
    return make_plan(described, initial, masks=masks, held=held.values, targets=["*/kernel"])


# the ratios are those that were recorded before this count could see into nested layers
@pytest.mark.parametrize(
    ("name", "dense", "masked", "at_zero", "at_init"),
    [
        ("logistic", 2 * 400, 80, 0.1, 0.7),
        ("mlp", 2 * (4_000 + 10_000 + 1_000), 3_000, 0.1, 0.7),
        (
            "cnn1d",
            2 * (19 * 125 + 10 * 1_875 + 5 * 1_875 + 1_250),
            6_354,
            0.10006299212598425,
            0.7000209973753281,
        ),
        ("gru", 2 * (2 * 40 * (18 + 108) + 4_800), 18_560, 0.6236559139784946, 0.8745519713261649),
    ],
)
def test_the_models_of_configs(
    name: str, dense: int, masked: int, at_zero: float, at_init: float
) -> None:
    model = MODELS[name]().build((40,), 10)
    assert flops_metrics(model, Plan()) == {"flops/dense": dense}
    for held, forward, step in ((Zero(), masked, at_zero), (Init(), dense, at_init)):
        assert flops_metrics(model, plan_of(model, held)) == {
            "flops/dense": dense,
            "flops/masked": forward,
            "flops/step_ratio": step,
        }


def test_layers_inside_of_layers() -> None:
    inner = keras.Sequential([keras.Input((6, 4)), layers.Conv1D(8, 3, name="conv")], name="inner")
    stack = [inner, layers.LSTM(5, name="lstm"), layers.Dense(2, name="output")]
    model = keras.Sequential([keras.Input((6, 4)), *stack])
    plan = plan_of(model, Zero())
    macs = {"inner/conv/kernel": 4 * 96, "lstm/lstm_cell/kernel": 4 * 160, "output/kernel": 10}
    rest = 4 * 100  # the recurrent kernel
    kept = sum(macs[w.weight.name] * w.mask.mean() for w in plan.weights)
    metrics = flops_metrics(model, plan)
    assert metrics["flops/dense"] == 2 * (sum(macs.values()) + rest)
    assert metrics["flops/masked"] == pytest.approx(2 * (kept + rest))
    assert metrics["flops/step_ratio"] == pytest.approx((kept + rest) / (sum(macs.values()) + rest))


def test_each_entry_costs_what_its_held_value_says() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense")])
    (weight, _) = describe(model)
    mask = np.arange(16).reshape(4, 4) >= 8
    held = np.where(np.arange(16).reshape(4, 4) < 4, np.float32(0), np.float32(0.5))
    metrics = flops_metrics(model, Plan((MaskedWeight(weight, mask, held),)))
    assert metrics == {
        "flops/dense": 32,
        "flops/masked": 24,  # four entries are held at zero
        "flops/step_ratio": (3 * 16 - 3 * 4 - 4) / (3 * 16),
    }


class Table(layers.Layer):  # type: ignore[misc]
    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=shape[1:], name="table")

    def call(self, x: Any) -> Any:
        return x * self.table


@pytest.mark.parametrize("shape", [(5, 3), (None, 3)], ids=["own product", "free length"])
def test_nothing_is_recorded_where_it_is_unknown(shape: tuple[int | None, int]) -> None:
    stack = [layers.Dense(4)] if shape[0] is None else [Table(), layers.Dense(4)]
    model = keras.Sequential([keras.Input(shape), *stack])
    assert flops_metrics(model, plan_of(model, Zero())) == {}
