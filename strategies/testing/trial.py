"""A strategy that trains a small model, for the checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
        """Returns the outputs of the trained model, by default for the training batch."""
        outputs, _, _ = self.training.forward(self.x if x is None else x, training=False)
        return np.asarray(outputs)


def loss(y: Any, outputs: Any) -> Any:
    """Returns the mean squared error."""
    return tf.reduce_mean(tf.square(outputs - y))


def batch(model: Any) -> tuple[Any, Any]:
    """Returns a batch of 16 inputs in [0, 3) and targets. An Embedding rounds the inputs down."""
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 3, (16, *model.input_shape[1:])).astype("float32")
    y = generator.normal(size=(16, *model.output_shape[1:])).astype("float32")
    return tf.constant(x), tf.constant(y)
