"""One forward pass of a model, on other values than its variables hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from masksweep.strategies.base import Invalid, Plan
from masksweep.strategies.core import keras_internals


def require_plain_calls(model: Any, plan: Plan) -> None:
    """Raise `Invalid` for a layer that Keras calls again in the backward pass.

    `keras.RematScope` wraps a layer in `tf.recompute_grad`. It finds the gradients of variables
    alone, so a masked weight, which is a tensor in the forward pass, would not train. A state that
    the layer updates would be written again after the forward pass.
    """
    for layer in keras_internals.all_layers(model):
        if not keras_internals.rematerialized(layer):
            continue
        if plan.weights or layer.non_trainable_variables:
            allowed = "is rematerialized (RematScope): its masked weights and states would be lost"
            raise Invalid("model", layer.name, allowed)


def require_listed(unlisted: Sequence[Any], model: Any) -> None:
    """Raise `Invalid` for a variable that a layer wrote to and the model does not list.

    A metric that a layer keeps by itself is left alone: it changes nothing that trains.
    """
    metrics = {id(v) for v in model.metrics_variables}
    for variable in unlisted:
        if id(variable) in metrics:
            continue
        allowed = "a layer writes to it, but the model does not list it (a stateful RNN?)"
        if "seed_generator_state" in variable.path:
            allowed = "a layer draws from Keras' global seed; give it a SeedGenerator of its own"
        raise Invalid("model", variable.path, f"{allowed}; it would not be saved or resumed")


class Forward(keras.StatelessScope):  # type: ignore[misc]
    """A forward pass, which writes to no variable.

    As under `fit`, what is read of a weight after a layer wrote to it in the same pass has a
    gradient of its own, and the write itself has none.
    """

    def __init__(
        self, values: Sequence[tuple[Any, Any]], weights: Sequence[Any], tape: Any
    ) -> None:
        """`values` are the variables with what they are in this pass. `tape` may be None."""
        super().__init__(values, collect_losses=True)
        self._known = set(self.state_mapping)
        self._tape, self._weights = tape, {id(v): v for v in weights}
        self._writes: dict[int, list[Any]] = {}
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        self.inside: list[Any] = []
        """Variables that a layer wrote to in another graph than this pass, as `keras.ops.cond` and
        loops make: the value cannot be used outside of it."""
        self.unlisted: list[Any] = []
        """Variables that a layer wrote to and the model does not list."""

    def add_update(self, update: tuple[Any, Any]) -> None:
        variable, value = update
        if not tf.executing_eagerly() and tf.compat.v1.get_default_graph() is not self._graph:
            self.inside.append(variable)
            return
        if id(variable) not in self._known:
            self.unlisted.append(variable)
        if id(variable) in self._weights:
            value = tf.stop_gradient(value)
            if self._tape is not None:
                self._tape.watch(value)
            self._writes.setdefault(id(variable), []).append(value)
        super().add_update((variable, value))

    def require_followed(self) -> None:
        """Raise `Invalid` for a variable that was written to where it cannot be followed.

        Not in `add_update`, since Keras turns what a layer raises into other exceptions.
        """
        for variable in self.inside:
            allowed = "is written to inside of a condition or a loop, which cannot be followed"
            raise Invalid("model", variable.path, allowed)

    def wrote(self, variable: Any) -> bool:
        """Whether a layer wrote to a variable that the model does not list."""
        return any(v is variable for v in self.unlisted)

    def writes(self, variable: Any) -> list[Any]:
        """What was written to a weight, in order."""
        return self._writes.get(id(variable), [])

    def written(self) -> list[tuple[Any, Any]]:
        """(weight, its new value) of each weight that was written to."""
        return [(self._weights[key], values[-1]) for key, values in self._writes.items()]
