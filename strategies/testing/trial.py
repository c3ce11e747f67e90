"""A strategy that trains a small model, for the checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies import Plan, Strategy
from masksweep.strategies.core.training import Training
from masksweep.strategies.core.weights import values
from masksweep.strategies.plan import Array


class Trial:
    """Trains a model under a strategy. It compiles once, and can start again with another plan.

    Args:
        strategy: The strategy to check.
        model: A built Keras model.
        plan: The masks and held values.
        optimizer: A Keras optimizer that was not built yet.
        jit: Whether to compile the step with XLA.
        eager: Whether to run each step eagerly. Tracing a step takes as long as ten such steps.
        **knobs: More arguments of `Training`, such as `trainable`.
    """

    def __init__(
        self,
        strategy: Strategy,
        model: Any,
        plan: Plan,
        optimizer: Any,
        *,
        jit: bool = False,
        eager: bool = False,
        **knobs: Any,
    ) -> None:
        self.model, self.plan = model, plan
        self.start = values(model)
        self.start_state = [v.numpy() for v in model.non_trainable_variables]
        self.training = Training(model, strategy, plan, optimizer=optimizer, loss=loss, **knobs)
        step = self.training.step
        self.step = step if eager else tf.function(step, jit_compile=jit)
        self.x, self.y = batch(model)

    def begin(self, plan: Plan) -> Trial:
        """Starts again from the initial weights, with another plan. Returns itself."""
        self.plan = plan
        self.training.assign_all(self.training.start(self.start, self.start_state, plan))
        return self

    def steps(self, count: int) -> Iterator[dict[str, Array]]:
        """Takes `count` steps on the same batch. Yields the dense weights by name after each."""
        for _ in range(count):
            self.step(self.x, self.y)
            yield self.weights()

    def end(self, count: int) -> dict[str, Array]:
        """Takes `count` steps on the same batch. Returns the dense weights by name at the end."""
        return list(self.steps(count))[-1]

    def weights(self) -> dict[str, Array]:
        """Returns the dense weights by name."""
        names = [w.name for w in self.training.weights]
        return dict(zip(names, (w.numpy() for w in self.training.effective()), strict=True))

    def state(self) -> list[Array]:
        """Returns the non-trainable weights, in the model's order."""
        return [v.numpy() for v in self.training.state]

    def slots(self) -> list[Array]:
        """Returns the values of all variables of the optimizer."""
        return [v.numpy() for v in self.training.optimizer.variables]

    def outputs(self, x: Any = None) -> Array:
        """Returns the outputs of the trained model, by default for the training batch.

        If there are several, they stand one after the other on the last axis.
        """
        outputs, _, _ = self.training.forward(self.x if x is None else x, training=False)
        return joined(outputs)


def joined(outputs: Any) -> Array:
    """Returns the outputs of a model as one array, several one after the other on the last axis."""
    arrays = [np.asarray(output) for output in keras.tree.flatten(outputs)]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)


def loss(y: Any, outputs: Any) -> Any:
    """Returns the mean squared error, summed over the outputs."""
    pairs = zip(keras.tree.flatten(y), keras.tree.flatten(outputs), strict=True)
    return sum(tf.reduce_mean(tf.square(output - target)) for target, output in pairs)


def batch(model: Any) -> tuple[Any, Any]:
    """Returns a batch of 16 inputs in [0, 3) and targets. An Embedding rounds the inputs down."""
    generator = np.random.default_rng(0)

    def inputs(shape: Any) -> Any:
        return tf.constant(generator.uniform(0, 3, (16, *shape[1:])), tf.float32)

    def targets(shape: Any) -> Any:
        return tf.constant(generator.normal(size=(16, *shape[1:])), tf.float32)

    if isinstance(model.input_shape, tuple) and isinstance(model.output_shape, tuple):
        return inputs(model.input_shape), targets(model.output_shape)
    shapes = model.input, model.output  # of a functional model
    return (
        keras.tree.map_structure(lambda tensor: inputs(tensor.shape), shapes[0]),
        keras.tree.map_structure(lambda tensor: targets(tensor.shape), shapes[1]),
    )
