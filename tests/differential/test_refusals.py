"""What is not trained as Keras trains it is refused, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from masksweep.strategies import Invalid, Plan
from masksweep.strategies.base import Strategy
from masksweep.strategies.dense import Dense
from masksweep.strategies.held import Zero
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.projection import Projection
from masksweep.strategies.training import Training
from masksweep.strategies.weights import describe, make_plan, values


class OwnStep(keras.Model):  # type: ignore[misc]
    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


class OwnLoss(keras.Model):  # type: ignore[misc]
    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs)


def stateful() -> Any:
    return keras.Sequential(
        [keras.Input((5, 4), batch_size=2), layers.LSTM(3, stateful=True), layers.Dense(1)]
    )


def own(kind: Any) -> Any:
    start = keras.Input((4,))
    return kind(start, layers.Dense(1)(start))


def writing() -> Any:
    layer = layers.SpectralNormalization(layers.Dense(3, name="inner"), name="normed")
    return keras.Sequential([keras.Input((4,)), layer, layers.Dense(1, name="head")])


def step(model: Any, strategy: Strategy, plan: Plan, **given: Any) -> None:
    optimizer, loss = keras.optimizers.SGD(), keras.losses.MeanSquaredError()
    training = Training(model, strategy, plan, optimizer=optimizer, loss=loss, **given)
    x = tf.zeros((2, *model.input_shape[1:]))
    tf.function(training.step)(x, tf.zeros((2, 1)))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (stateful, "model=.*a stateful RNN"),
        (lambda: own(OwnStep), "model=OwnStep: overrides train_step"),
        (lambda: own(OwnLoss), "model=OwnLoss: overrides compute_loss"),
    ],
)
def test_a_model_is_refused(build: Callable[[], Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        step(build(), Dense(), Plan())


def test_a_weight_that_its_layer_writes_to_cannot_be_masked() -> None:
    model = writing()
    plan = make_plan(describe(model), values(model), masks=Random(0.5).masks, held=Zero().values)
    with pytest.raises(Invalid, match="writes to normed/kernel in the forward pass"):
        step(model, Projection(), plan)


def test_a_weight_that_its_layer_writes_to_must_train() -> None:
    with pytest.raises(Invalid, match="must match normed/kernel"):
        step(writing(), Dense(), Plan(), trainable=["head/*"], statistics=["*"])


def test_an_optimizer_must_be_new() -> None:
    model, optimizer = own(keras.Model), keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    with pytest.raises(Invalid, match="must be new"):
        Training(model, Dense(), Plan(), optimizer=optimizer, loss=np.mean)
