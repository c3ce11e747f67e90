"""Globs on weight names freeze the same weights and states as `layer.trainable = False`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from masksweep.strategies import Plan
from masksweep.strategies.core.audit import same_bits
from masksweep.strategies.core.moving_statistics import frozen_statistics
from masksweep.strategies.core.training import Training
from masksweep.strategies.dense import Dense

STEPS = 3


def body(**norm: Any) -> Any:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, name="hidden", kernel_regularizer="l2"),
            layers.BatchNormalization(name="norm", **norm),
            layers.Dense(1, name="head"),
        ]
    )


class Owner(keras.Model):  # type: ignore[misc]
    """A model that has a non-trainable weight of its own, besides those of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = layers.BatchNormalization(name="norm", gamma_regularizer="l2")
        self.head = layers.Dense(1, name="head")
        self.factor = self.add_weight(shape=(), name="factor", initializer="ones", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.head(self.norm(x, training=training) * self.factor)


def owner() -> Any:
    keras.utils.set_random_seed(3)
    model = Owner()
    model(tf.zeros((2, 4)))
    return model


def batches() -> Any:
    rng = np.random.default_rng(0)
    return rng.normal(2, 3, (STEPS, 8, 4)).astype("float32"), rng.normal(size=(STEPS, 8, 1)).astype(
        "float32"
    )


def trained(model: Any, **globs: Any) -> tuple[Training, list[float]]:
    training = Training(
        model, Dense(), Plan(), optimizer=keras.optimizers.Adam(0.1),
        loss=keras.losses.MeanSquaredError(), **globs,
    )  # fmt: skip
    step = tf.function(training.step)
    return training, [
        float(step(tf.constant(x), tf.constant(y))[0]) for x, y in zip(*batches(), strict=True)
    ]


def of(model: Any) -> dict[str, Any]:
    return {v.path.partition("/")[2]: np.asarray(v.numpy()) for v in model.weights}


def by_keras(model: Any, frozen: Sequence[Any]) -> dict[str, Any]:
    for layer in frozen:
        layer.trainable = False
    model.compile(keras.optimizers.Adam(0.1), "mse", jit_compile=False)
    for x, y in zip(*batches(), strict=True):
        model.train_on_batch(x, y)
    return of(model)


@pytest.mark.parametrize(
    ("globs", "frozen"),
    [
        (["head/*"], ["hidden", "norm"]),
        (["head/*", "norm/*"], ["hidden"]),
        (["head/*", "norm/gamma", "norm/beta"], ["hidden"]),
        (["*/kernel", "*/bias", "*/gamma", "*/beta"], []),
        (["*"], []),
    ],
)
def test_globs_freeze_what_keras_freezes(globs: list[str], frozen: list[str]) -> None:
    model = body()
    expected = by_keras(model, [model.get_layer(name) for name in frozen])
    training, _ = trained(body(), trainable=globs)
    values = of(training.model)
    assert {n for n in expected if not same_bits(expected[n], values[n])} == set()


def test_a_forward_pass_leaves_the_settings_of_a_model_alone() -> None:
    """This includes the settings of its variables and inner layers."""
    model = body()
    model.get_layer("hidden").kernel.trainable = False
    before = [v.trainable for v in model.weights], [layer.trainable for layer in model.layers]
    training, _ = trained(model, trainable=["head/*"])
    training.forward(tf.zeros((2, 4)), training=False)
    assert ([v.trainable for v in model.weights], [la.trainable for la in model.layers]) == before


@pytest.mark.parametrize("build", [lambda: body(gamma_regularizer="l2"), owner])
def test_frozen_statistics_leave_the_regularizers_of_weights_that_train(
    build: Callable[[], Any],
) -> None:
    model = build()
    penalties = [float(loss) for loss in model.losses]
    training, _ = trained(model, statistics=[])
    x = tf.zeros((2, 4))
    _, _, losses = training.forward(x, training=True)
    assert len(losses) == len(penalties) > 0
    assert all(float(tf.reduce_sum(loss_term)) > 0 for loss_term in losses)


def test_a_weight_of_the_model_itself_does_not_freeze_its_layers() -> None:
    training, _ = trained(owner(), statistics=["norm/*"])
    assert [s.name for s in training.frozen] == ["factor"]
    assert same_bits(
        of(training.model)["norm/moving_mean"], by_keras(owner(), [])["norm/moving_mean"]
    )


def test_a_statistic_is_frozen_where_nothing_of_its_layer_trains() -> None:
    def frozen(*globs: str) -> list[str]:
        return [s.name for s in frozen_statistics(body(), globs, None)]

    assert frozen("*") == frozen("norm/gamma") == frozen("*/kernel", "*/bias", "*/gamma", "*/beta")
    assert frozen("*") == []
    assert frozen("head/*") == ["norm/moving_mean", "norm/moving_variance"]
    assert frozen("head/*", "norm/moving_mean") == ["norm/moving_variance"]
