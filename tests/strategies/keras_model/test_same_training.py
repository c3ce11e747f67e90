"""A sweep's training and `fit` are one implementation: the same weights and slots, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from masksweep import strategies
from masksweep.strategies.core.audit import same_bits, same_weights
from masksweep.strategies.core.training import Training
from masksweep.strategies.testing.case import Case
from masksweep.strategies.testing.documented import CASES
from masksweep.strategies.testing.networks import network
from masksweep.strategies.testing.trial import batch
from tests.support.selection import by_default

STEPS = 6
IN_A_GRAPH = ("hard_mask", "sparse_values", "sparse_tensor", "var_list")
"""The others are compared eagerly, which takes less time."""
COMPARED = ["dense", "weight_mask", "hard_mask", "sparse_values", "sparse_tensor", "var_list"]
"""Strategies that are compared by default, one for each way to hold a weight."""


def new_optimizer() -> Any:
    return keras.optimizers.AdamW(0.01, weight_decay=0.1, use_ema=True, ema_momentum=0.9)


def masked_model(case: Case, held: str) -> Any:
    model = network()
    plan = case.plan(model, held)
    masks = {w.weight.name: w.mask for w in plan.weights}
    values = {w.weight.name: w.held for w in plan.weights}
    masked = strategies.apply(model, masks, case.strategy, held=values)
    loss = keras.losses.MeanSquaredError()
    masked.compile(new_optimizer(), loss, run_eagerly=case.strategy.name not in IN_A_GRAPH)
    return masked


def arrays(values: Any) -> list[Any]:
    return [np.asarray(v.numpy()) for v in values]


@pytest.mark.parametrize("name", by_default(COMPARED, CASES))
def test_a_sweeps_training_and_fit_have_the_same_bits(name: str, tmp_path: Path) -> None:
    """`fit` is also saved and loaded half-way, into a model that Keras makes from the file."""
    case = CASES[name]
    held = "zero" if "constant" in case.refuses else "constant"
    model = network()
    training = Training(
        model,
        case.strategy,
        case.plan(model, held),
        optimizer=new_optimizer(),
        loss=keras.losses.MeanSquaredError(),
    )
    x, y = batch(model)
    step = tf.function(training.step) if case.strategy.name in IN_A_GRAPH else training.step
    for _ in range(STEPS):
        step(x, y)

    masked = masked_model(case, held)
    for i in range(STEPS):
        if i == STEPS // 2:
            masked.save(tmp_path / "half.keras")
            masked = keras.models.load_model(tmp_path / "half.keras")
        masked.train_on_batch(x, y)

    names = [w.name for w in training.weights]
    weights = dict(zip(names, arrays(training.effective()), strict=True))
    assert same_weights(masked.dense_weights(), weights)
    for ours, theirs in (
        (masked.trainable_variables, training.values),
        (masked.non_trainable_variables, training.state),
        (masked.optimizer.variables, training.optimizer.variables),
    ):
        pairs = zip(arrays(ours), arrays(theirs), strict=True)
        assert all(same_bits(a, b) for a, b in pairs)
    training.finalize()
    masked.optimizer.finalize_variable_values(masked.trainable_variables)
    weights = dict(zip(names, arrays(training.effective()), strict=True))
    assert same_weights(masked.dense_weights(), weights)
