"""`tf.train.Checkpoint` of a masked model: it has the masks, and all values that train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from masksweep import strategies
from masksweep.strategies import Invalid
from tests.support.selection import by_default

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(64, 8)).astype("float32"), RNG.normal(size=(64, 4)).astype("float32")
STRATEGIES = ("weight_mask", "gradient_mask", "hard_mask", "projection", "sparse_values")


def masked(strategy: str, seed: int, **settings: Any) -> Any:
    """A compiled model with the weights and masks of a seed."""
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(16, "relu", name="hidden"), keras.layers.Dense(4, name="output")]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model = strategies.apply(model, strategies.Random(0.5), strategy, seed=seed, **settings)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def fit(model: Any) -> None:
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0, shuffle=False)


@pytest.mark.parametrize("strategy", by_default(["hard_mask", "sparse_values"], STRATEGIES))
def test_a_restored_model_goes_on_to_the_same_bits(strategy: str, tmp_path: Path) -> None:
    whole, other = masked(strategy, 0, held=0.25), masked(strategy, 1, held=0.5)
    fit(whole)
    path = tf.train.Checkpoint(model=whole, optimizer=whole.optimizer).save(tmp_path / "ckpt")
    fit(other)  # it has its own masks, held values and slots by now
    restored = tf.train.Checkpoint(model=other, optimizer=other.optimizer).restore(path)
    restored.assert_consumed()
    for model in (whole, other):
        fit(model)
    assert strategies.audit(other).ok
    for mine, theirs in zip(whole.plan.weights, other.plan.weights, strict=True):
        np.testing.assert_array_equal(mine.mask, theirs.mask)
        np.testing.assert_array_equal(mine.held_values, theirs.held_values)
    expected = whole.dense_weights()
    for name, array in other.dense_weights().items():
        np.testing.assert_array_equal(array, expected[name])


def test_what_it_cannot_have_is_refused(tmp_path: Path) -> None:
    sparse = masked("sparse_tensor", 0)
    with pytest.raises(Invalid, match=r"strategy=sparse_tensor: tf\.train\.Checkpoint"):
        tf.train.Checkpoint(model=sparse).save(tmp_path / "ckpt")
    moving = masked("hard_mask", 0, schedule=strategies.SET(frequency=2))
    with pytest.raises(Invalid, match=r"schedule=set: tf\.train\.Checkpoint"):
        tf.train.Checkpoint(model=moving).save(tmp_path / "ckpt")
    assert not list(tmp_path.glob("*.data*"))
