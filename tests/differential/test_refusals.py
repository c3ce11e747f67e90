"""Models, layers and optimizers that cannot train as under Keras are refused with a reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from masksweep.strategies import STRATEGIES, Invalid, Plan
from masksweep.strategies.base import Strategy
from masksweep.strategies.core.audit import same_bits
from masksweep.strategies.core.training import Training
from masksweep.strategies.core.weights import describe, make_plan, values
from masksweep.strategies.dense import Dense
from masksweep.strategies.held.zero import Zero
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.projection import Projection


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


def step(model: Any, strategy: Strategy, plan: Plan, **globs: Any) -> None:
    optimizer, loss = keras.optimizers.SGD(), keras.losses.MeanSquaredError()
    training = Training(model, strategy, plan, optimizer=optimizer, loss=loss, **globs)
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
    plan = make_plan(
        describe(model), values(model), masks=Random(0.5).from_weights, held=Zero().values
    )
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


class Keeping(layers.Layer):  # type: ignore[misc]
    """Has a metric of its own, as in Keras' guide on custom layers."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = keras.metrics.Mean(name="mean")

    def call(self, x: Any) -> Any:
        self.mean.update_state(x)
        return x


class Adding(layers.Layer):  # type: ignore[misc]
    """Adds a loss that is not a scalar, and a loss of integers."""

    def call(self, x: Any) -> Any:
        self.add_loss(keras.ops.mean(x**2, axis=0))
        self.add_loss(keras.ops.sum(keras.ops.cast(x > 0, "int32")))
        return x


class Unreached(keras.Model):  # type: ignore[misc]
    """Has a layer on which no output depends."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = layers.Dense(1), layers.Dense(1)

    def call(self, x: Any) -> Any:
        self.idle(x)
        return self.used(x)


class Switching(layers.Layer):  # type: ignore[misc]
    """Draws random numbers from its seed inside a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = layers.Dropout(0.5)

    def call(self, x: Any, training: bool = False) -> Any:
        wanted = keras.ops.sum(x) > -1e9
        return keras.ops.cond(wanted, lambda: self.drop(x, training=training), lambda: x)


class Drawing(layers.Layer):  # type: ignore[misc]
    """Draws random numbers from Keras' global seed."""

    def call(self, x: Any) -> Any:
        return x + keras.random.normal((4,))


def within(layer: layers.Layer) -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((4,)), layers.Dense(4), layer, layers.Dense(1)])


def unreached() -> Any:
    keras.utils.set_random_seed(1)
    model = Unreached()
    model(tf.zeros((2, 4)))
    return model


def kept(model: Any) -> list[Any]:
    """Returns the values of the metrics of layers."""
    metrics = [layer.mean for layer in model.layers if isinstance(layer, Keeping)]
    return [v.numpy() for metric in metrics for v in metric.variables]


def multi() -> Any:
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.Adam(), {".*head.*": keras.optimizers.SGD()})
    )


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("optimizer", [keras.optimizers.Adam, multi])
@pytest.mark.parametrize("build", [lambda: within(Keeping()), lambda: within(Adding()), unreached])
def test_what_keras_trains_is_trained(
    build: Callable[[], Any], optimizer: Callable[[], Any]
) -> None:
    x, y = tf.reshape(tf.range(32.0), (8, 4)) / 32, tf.ones((8, 1))
    keras_model, our_model = build(), build()
    keras_model.compile(optimizer(), "mse", jit_compile=False)
    training = Training(
        our_model, Dense(), Plan(), optimizer=optimizer(), loss=keras.losses.MeanSquaredError()
    )
    step = tf.function(training.step)
    for _ in range(3):
        expected = keras_model.train_on_batch(x, y, return_dict=True)["loss"]
        loss, _ = step(x, y)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    for their_weight, our_weight in zip(keras_model.weights, our_model.weights, strict=True):
        assert same_bits(np.asarray(their_weight.numpy()), np.asarray(our_weight.numpy()))
    assert all(kept(our_model)), "metrics go on; Keras resets them in train_on_batch"


@pytest.mark.parametrize(
    ("layer", "words"),
    [(Switching, "inside of a condition or a loop"), (Drawing, "a SeedGenerator of its own")],
)
def test_a_layer_is_refused(layer: Callable[[], Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        step(within(layer()), Dense(), Plan())


def masked(model: Any) -> Plan:
    masks, held = Random(0.5).from_weights, Zero().values
    return make_plan(describe(model), values(model), masks=masks, held=held, targets=["*/kernel"])


def test_a_rematerialized_layer_cannot_hold() -> None:
    with keras.RematScope("full"):
        layer = layers.Dense(4)
    model = within(layer)
    with pytest.raises(Invalid, match="rematerialized"):
        step(model, Projection(), masked(model))
    with keras.RematScope("full"):
        layer = layers.BatchNormalization()
    with pytest.raises(Invalid, match="rematerialized"):
        step(within(layer), Dense(), Plan())


def test_an_optimizer_within_another_must_be_new() -> None:
    model, inner = own(keras.Model), keras.optimizers.Adam()
    inner.build(model.trainable_variables)
    for outer in (
        keras.optimizers.LossScaleOptimizer(inner),
        keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(inner)),
    ):
        with pytest.raises(Invalid, match="must be new"):
            Training(model, Dense(), Plan(), optimizer=outer, loss=np.mean)


def test_an_optimizer_for_each_variable_must_be_in_a_map() -> None:
    adam = keras.optimizers.Adam()
    optimizer = keras.optimizers.MultiOptimizer(lambda variable: adam)
    with pytest.raises(Invalid, match="OptimizerMap"):
        Training(own(keras.Model), Dense(), Plan(), optimizer=optimizer, loss=np.mean)


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_optimizer_whose_slots_start_from_the_weights_is_refused(wrapped: bool) -> None:
    optimizer = keras.optimizers.ScheduleFreeAdamW()
    if wrapped:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    with pytest.raises(Invalid, match="starts its slots from the weights"):
        Training(own(keras.Model), Dense(), Plan(), optimizer=optimizer, loss=np.mean)


def test_what_is_refused_changes_nothing() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = own(keras.Model)
    finally:
        keras.config.set_dtype_policy("float32")
    plan, before = masked(model), values(model)
    optimizer = keras.optimizers.SGD(loss_scale_factor=4.0)
    with pytest.raises(Invalid, match="statistics"):
        Training(
            model, Projection(), plan, optimizer=optimizer, loss=np.mean, statistics=["none/*"]
        )
    assert all(same_bits(before[name], array) for name, array in values(model).items())
    assert optimizer.loss_scale_factor == 4.0
    training = Training(model, Projection(), plan, optimizer=optimizer, loss=np.mean)
    other_model = within(layers.ReLU())
    plan, before = masked(other_model), None
    del training
    sparse = STRATEGIES["sparse_values"]()
    training = Training(other_model, sparse, plan, optimizer=keras.optimizers.SGD(), loss=np.mean)
    first, second = plan.weights
    unfit_plan = Plan((dataclasses.replace(first, mask=first.mask[:, ::-1]),
                dataclasses.replace(second, mask=np.ones_like(second.mask))))  # fmt: skip
    before = [np.asarray(a) for a in training.effective()]
    with pytest.raises(Invalid, match="masks of other sizes"):
        training.switch(unfit_plan)
    assert all(
        same_bits(a, np.asarray(b)) for a, b in zip(before, training.effective(), strict=True)
    )
