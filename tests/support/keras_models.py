"""Keras models, data and trainings that the tests of masked models share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers

from masksweep.strategies.plan import Array

BATCH, BATCHES = 8, 6
SAMPLES = BATCH * BATCHES


def images(seed: int = 0) -> tuple[Array, Array]:
    """Random inputs `[samples, 6, 6, 1]`, and classes `[samples]` that depend on them."""
    x = np.random.default_rng(seed).normal(size=(SAMPLES, 6, 6, 1)).astype("float32")
    return x, (x[:, 0, 0, 0] > 0).astype("int32") + (x[:, 1, 1, 0] > 0)


def convnet(**dense: Any) -> Any:
    """A model with a convolution, BatchNormalization and Dropout, always with the same weights."""
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.LeakyReLU(name="bend"),
            layers.Dropout(0.2, seed=3, name="drop"),
            layers.Flatten(name="flat"),
            layers.Dense(8, "tanh", name="hidden", **dense),
            layers.Dense(3, name="output"),
        ]
    )


def two_of_each() -> Any:
    """A model with two inputs, two outputs, a shared layer and a nested model."""
    keras.utils.set_random_seed(5)
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    shared = layers.Dense(4, "tanh", name="shared")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="deep")], name="inner")
    joined = layers.Concatenate(name="joined")([shared(first), shared(inner(second))])
    outputs = {
        "left": layers.Dense(1, name="left")(joined),
        "right": layers.Dense(1, name="right")(joined),
    }
    return keras.Model([first, second], outputs)


@keras.saving.register_keras_serializable("tests")
class Penalized(keras.Model):  # type: ignore[misc]
    """A subclassed model that adds a loss and has a metric, and whose `call` has no `training`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = layers.Dense(8, name="hidden", kernel_regularizer=keras.regularizers.L2(0.1))
        self.last = layers.Dense(3, name="output")
        self.flat = layers.Flatten(name="flat")
        self.largest = keras.metrics.Mean(name="largest")

    def call(self, x: Any) -> Any:
        y = self.hidden(self.flat(x))
        self.add_loss(0.01 * keras.ops.sum(keras.ops.square(y)))
        self.largest.update_state(keras.ops.max(y))
        return self.last(keras.ops.tanh(y))


def penalized() -> Any:
    keras.utils.set_random_seed(5)
    model = Penalized()
    model(images()[0][:1])
    return model


def _classes(model: Any) -> dict[str, Any]:
    x, y = images()
    return {"x": x, "y": y}


@dataclass(frozen=True)
class Fit:
    """A model with its arguments of `compile` and `fit`."""

    model: Callable[[], Any] = convnet
    optimizer: Callable[[], Any] = lambda: keras.optimizers.Adam(0.01)
    compiling: Mapping[str, Any] = field(default_factory=dict)
    fitting: Callable[[], Mapping[str, Any]] = dict
    policy: str = "float32"

    def build(self) -> Any:
        """The model, not compiled."""
        keras.utils.clear_session(free_memory=False)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.policy)
        try:
            return self.model()
        finally:
            keras.config.set_dtype_policy(before)

    def fit(self, model: Any, epochs: int = 2, **more: Any) -> dict[str, list[float]]:
        """Compiles and trains a model. Returns the history."""
        if not model.compiled:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            arguments = {"loss": loss, "metrics": ["accuracy"], **self.compiling}
            model.compile(self.optimizer(), **arguments)
        keras.utils.set_random_seed(9)
        x, y = images()
        data = {"x": x, "y": y, "batch_size": BATCH, **self.fitting(), **more}
        history: dict[str, list[float]] = model.fit(epochs=epochs, verbose=0, **data).history
        return history
