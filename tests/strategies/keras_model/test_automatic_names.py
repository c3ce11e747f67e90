"""Layers without names of their own, which Keras numbers through the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from masksweep import strategies
from masksweep.strategies.core.audit import same_bits
from masksweep.strategies.core.weights import describe
from masksweep.strategies.keras_model import masked_model, stored_masks

X, Y = np.random.default_rng(0).normal(size=(32, 6)).astype("float32"), np.arange(32) % 3


@keras.saving.register_keras_serializable("tests")
class Net(keras.Model):  # type: ignore[misc]
    """A model that makes its layers itself, so that a loaded one has layers with other names."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = [keras.layers.Dense(8, "tanh"), keras.layers.Dense(8, "tanh")]
        self.last = keras.layers.Dense(3)

    def call(self, x: Any) -> Any:
        for layer in self.hidden:
            x = layer(x)
        return self.last(x)


def subclassed() -> Any:
    model = Net()
    model(X[:1])
    return model


def sequential() -> Any:
    dense = keras.layers.Dense
    inner = keras.Sequential([keras.Input((8,)), dense(8, "tanh"), dense(8, "tanh")])
    return keras.Sequential([keras.Input((6,)), dense(8), inner, dense(3)])


def recurrent() -> Any:
    layers = keras.layers
    both_ways = layers.Bidirectional(layers.SimpleRNN(4))
    return keras.Sequential([keras.Input((6,)), layers.Reshape((3, 2)), both_ways, layers.Dense(3)])


def masked(model: Any, strategy: str = "hard_mask") -> Any:
    model = strategies.apply(model, strategies.Random(0.5), strategy, seed=4)
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    return model


def train(model: Any) -> None:
    keras.utils.set_random_seed(1)
    model.fit(X, Y, epochs=1, verbose=0)


@pytest.mark.parametrize("make", [subclassed, sequential, recurrent])
def test_the_masks_do_not_depend_on_what_was_built_before(make: Any) -> None:
    first, second = make(), make()
    assert [w.name for w in describe(first)] != [w.name for w in describe(second)]
    plans = [masked(model).plan.weights for model in (first, second)]
    for one, other in zip(*plans, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
    square = [w.mask for w in plans[0] if w.weight.shape == (8, 8)]
    assert not any((mask == square[0]).all() for mask in square[1:])


def test_values_that_grow_do_not_depend_on_what_was_built_before() -> None:
    grown = []
    for _ in range(2):
        keras.utils.set_random_seed(2)
        schedule = strategies.SET(frequency=1, deviation=0.5)
        model = strategies.apply(sequential(), strategies.Random(0.5), schedule=schedule)
        model.compile("sgd", "mse", run_eagerly=True)
        model.fit(X, np.ones((32, 3)), 16, epochs=1, verbose=0)
        grown.append([*model.dense_weights().values()])
    for one, other in zip(*grown, strict=True):
        np.testing.assert_array_equal(one, other)


def test_names_that_were_given_stay() -> None:
    dense = [keras.layers.Dense(4, name=name) for name in ("dense_2", "dense_1", "last")]
    model = keras.Sequential([keras.Input((4,)), *dense])
    assert [w.name for w in describe(model)][::2] == [
        "dense_2/kernel",
        "dense_1/kernel",
        "last/kernel",
    ]
    chosen = strategies.apply(model, {"dense_1/kernel": np.eye(4, dtype=bool)})
    assert [w.weight.name for w in chosen.plan.weights] == ["dense_1/kernel"]


@pytest.mark.parametrize("strategy", ["hard_mask", "sparse_values"])
def test_a_loaded_model_with_other_names_goes_on_to_the_same_bits(
    strategy: str, tmp_path: Path
) -> None:
    model = masked(subclassed(), strategy)
    train(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [*loaded.dense_weights()] != [*model.dense_weights()]
    for trained in (model, loaded):
        train(trained)
        assert strategies.audit(trained).ok
    pairs = zip(model.dense_weights().values(), loaded.dense_weights().values(), strict=True)
    assert all(same_bits(a, b) for a, b in pairs)


def test_weights_are_loaded_into_a_model_that_was_built_again(tmp_path: Path) -> None:
    model = masked(sequential())
    train(model)
    model.save_weights(tmp_path / "a.weights.h5")
    again = masked(sequential())
    again.optimizer.build(again.trainable_variables)  # as Keras needs it
    again.load_weights(tmp_path / "a.weights.h5")
    pairs = zip(model.dense_weights().values(), again.dense_weights().values(), strict=True)
    assert all(same_bits(a, b) for a, b in pairs)


def test_a_file_with_the_names_of_the_process_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions wrote these names, not the stable ones."""
    dense = [keras.layers.Dense(6, name=name) for name in ("dense_1", "dense_2", "last")]
    model = masked(keras.Sequential([keras.Input((6,)), *dense]))
    train(model)
    with monkeypatch.context() as patch:
        patch.setattr(masked_model, "stable", str)
        patch.setattr(stored_masks, "stable", str)
        get_config = strategies.MaskedModel.get_config
        patch.setattr(
            strategies.MaskedModel,
            "get_config",
            lambda self: {k: v for k, v in get_config(self).items() if k != "stable_names"},
        )
        model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(model.plan.weights, loaded.plan.weights, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)


def test_another_process_loads_it(tmp_path: Path) -> None:
    model = masked(sequential(), "sparse_values")
    train(model)
    model.save(tmp_path / "model.keras")
    script = """
import keras, sys
from masksweep import strategies
model = keras.models.load_model(sys.argv[1])
print(strategies.audit(model).ok, *(f"{a.sum():.9g}" for a in model.dense_weights().values()))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "model.keras")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    sums = [f"{array.sum():.9g}" for array in model.dense_weights().values()]
    assert done.stdout.split() == ["True", *sums]
