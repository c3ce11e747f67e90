"""The gradients by the dense weights that schedules such as RigL look at, stored in one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf

from masksweep.strategies.core.held_weight import HeldWeight
from masksweep.strategies.plan import Array


class DenseGradients:
    """The gradients by the dense weights, of the batch of the last step before a change of masks.

    They are computed inside the compiled training step, and in no other step.

    Args:
        replicas: The `tf.distribute` strategy of the model. Several replicas add their gradients.
    """

    def __init__(self, replicas: Any) -> None:
        self._replicas = replicas
        self._weights: Sequence[HeldWeight] = ()
        self._gradients: list[Any] = []
        self._due = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self._stored_at = self._variable(
            tf.constant(-1, tf.int64), tf.VariableAggregation.ONLY_FIRST_REPLICA
        )

    def _variable(self, initial: Any, aggregation: Any) -> Any:
        """Returns a variable of which each replica has a copy, and assigns without the others."""
        with self._replicas.scope():
            return tf.Variable(
                initial,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=aggregation,
            )

    def begin(self, weights: Sequence[HeldWeight]) -> None:
        """Makes the variables for the gradients, unless there are some.

        Args:
            weights: The masked weights.
        """
        if not self._gradients:
            self._weights = weights
            self._gradients = [
                self._variable(
                    tf.zeros(held.weight.shape, held.weight.dtype), tf.VariableAggregation.SUM
                )
                for held in weights
            ]

    def wait_for(self, step: int | None) -> None:
        """Sets the step of the optimizer whose gradients are stored next; None for no step."""
        self._due.assign(-1 if step is None else step)

    def store(
        self,
        steps: Any,
        dense_values: Callable[[Sequence[Any]], AbstractContextManager[None]],
        loss: Callable[[], Any],
    ) -> None:
        """Stores the gradients if a change follows; in the graph of a training step.

        Args:
            steps: Number of steps of the optimizer, as a tensor.
            dense_values: `Holding.dense_values`.
            loss: Calls the plain model on the batch, in training mode, and returns its whole loss.
        """
        if not self._gradients:  # the schedule does not need them
            return
        steps = tf.cast(steps, tf.int64)

        def store() -> Any:
            dense = [tf.convert_to_tensor(held.effective()) for held in self._weights]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(dense)
                with dense_values(dense):
                    value = loss()
            zeros = tf.UnconnectedGradients.ZERO
            gradients = tape.gradient(value, dense, unconnected_gradients=zeros)
            for variable, gradient in zip(self._gradients, gradients, strict=True):
                variable.assign(tf.convert_to_tensor(gradient))
            self._stored_at.assign(steps)
            return tf.constant(True)

        tf.cond(tf.equal(steps, self._due), store, lambda: tf.constant(False))

    def of_step(self, step: int) -> Mapping[str, Array] | None:
        """Returns the gradients of a step by the names of the weights; None if none were stored."""
        if int(tf.convert_to_tensor(self._stored_at)) != step:
            return None
        pairs = zip(self._weights, self._gradients, strict=True)
        return {h.weight.name: tf.convert_to_tensor(gradient).numpy() for h, gradient in pairs}
