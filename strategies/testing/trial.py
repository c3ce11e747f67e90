"""One strategy that trains one small model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from masksweep.strategies import Plan, Strategy
from masksweep.strategies.base import Array
from masksweep.strategies.core.training import Training
from masksweep.strategies.core.weights import values


class Trial:
    """A strategy that trains a model. It is compiled once, and can start again with another plan.

    Args:
        strategy: The strategy to try.
        model: A built Keras model.
        plan: What is masked.
        optimizer: A Keras optimizer that has no variables yet.
        jit: Whether to compile the step with XLA.
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
        **knobs: Any,
    ) -> None:
        self.model, self.plan = model, plan
        self.start = values(model)
        self.start_state = [v.numpy() for v in model.non_trainable_variables]
        self.training = Training(model, strategy, plan, optimizer=optimizer, loss=loss, **knobs)
        self.step = tf.function(self.training.step, jit_compile=jit)
        self.x, self.y = batch(model)

    def begin(self, plan: Plan) -> Trial:
        self.plan = plan
        self.training.put(self.training.start(self.start, self.start_state, plan))
        return self

    def steps(self, count: int) -> Iterator[dict[str, Array]]:
        """Train; the dense weights by name after each step."""
        for _ in range(count):
            self.step(self.x, self.y)
            yield self.weights()

    def end(self, count: int) -> dict[str, Array]:
        """Train; the dense weights by name at the end."""
        return list(self.steps(count))[-1]

    def weights(self) -> dict[str, Array]:
        names = [w.name for w in self.training.weights]
        return dict(zip(names, (w.numpy() for w in self.training.effective()), strict=True))

    def state(self) -> list[Array]:
        return [v.numpy() for v in self.training.state]

    def slots(self) -> list[Array]:
        return [v.numpy() for v in self.training.optimizer.variables]

    def outputs(self, x: Any = None) -> Array:
        """What the live model answers, by default to the training batch."""
        outputs, _, _ = self.training.forward(self.x if x is None else x, training=False)
        return np.asarray(outputs)


def loss(y: Any, outputs: Any) -> Any:
    return tf.reduce_mean(tf.square(outputs - y))


def batch(model: Any) -> tuple[Any, Any]:
    """Inputs in 0..3 (an Embedding takes their integer part) and targets."""
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 3, (16, *model.input_shape[1:])).astype("float32")
    y = generator.normal(size=(16, *model.output_shape[1:])).astype("float32")
    return tf.constant(x), tf.constant(y)
