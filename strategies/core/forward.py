"""A forward pass of a model in which its variables have other values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from masksweep.strategies.core import keras_internals
from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Plan


def require_plain_calls(model: Any, plan: Plan) -> None:
    """Checks that Keras calls each layer in the forward pass only.

    `keras.RematScope` wraps a layer in `tf.recompute_grad`, which calls it again in the backward
    pass. It returns gradients only for variables. A masked weight is a tensor in the forward pass,
    so it would not train. A state that the layer updates would be updated once more.

    Raises:
        Invalid: Keras calls a layer again, and the plan masks weights or the layer has a state.
    """
    for layer in keras_internals.all_layers(model):
        if not keras_internals.rematerialized(layer):
            continue
        if plan.weights or layer.non_trainable_variables:
            allowed = "is rematerialized (RematScope): its masked weights and states would be lost"
            raise Invalid("model", layer.name, allowed)


def require_listed(unlisted: Sequence[Any], model: Any) -> None:
    """Checks the variables that a layer wrote to, but that the model does not list.

    Metrics of layers are allowed, because they do not change what trains.

    Args:
        unlisted: Variables that are not among the model's weights and states.
        model: The model.

    Raises:
        Invalid: A variable is not one of a metric.
    """
    metrics = {id(v) for v in model.metrics_variables}
    for variable in unlisted:
        if id(variable) in metrics:
            continue
        allowed = "a layer writes to it, but the model does not list it (a stateful RNN?)"
        if "seed_generator_state" in variable.path:
            allowed = "a layer draws from Keras' global seed; give it a SeedGenerator of its own"
        raise Invalid("model", variable.path, f"{allowed}; it would not be saved or resumed")


class ForwardScope(keras.StatelessScope):  # type: ignore[misc]
    """A scope for a forward pass that writes to no variable.

    A layer may write to a weight and then read it in the same pass. As under `fit`, the value that
    is read gets a gradient, and no gradient flows through the write.
    """

    def __init__(
        self,
        values: Sequence[tuple[Any, Any]],
        weights: Sequence[Any],
        tape: Any,
        when_read: Mapping[int, Callable[[], Any]],
    ) -> None:
        """Makes the scope.

        Args:
            values: Pairs of a variable and its value in this pass.
            weights: The trainable variables of the model.
            tape: The `tf.GradientTape` that watches values written to weights, or None.
            when_read: Functions that return the value of a variable, by its `id`. They are called
                only if a layer reads the variable.
        """
        super().__init__(values, collect_losses=True)
        self._when_read = when_read
        self._known = {*self.state_mapping, *when_read}
        self._tape, self._weights = tape, {id(v): v for v in weights}
        self._writes: dict[int, list[Any]] = {}
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        self.inside: list[Any] = []
        """Variables that a layer wrote to inside another graph, such as the graph of a
        `keras.ops.cond` or a loop. The written value cannot be used outside of that graph."""
        self.unlisted: list[Any] = []
        """Variables that a layer wrote to and the model does not list."""

    def get_current_value(self, variable: Any) -> Any:
        value = super().get_current_value(variable)
        if value is None and id(variable) in self._when_read:
            return self._when_read[id(variable)]()
        return value

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
        """Checks that no layer wrote to a variable inside a condition or a loop.

        `add_update` does not check this, because Keras replaces an exception that is raised inside
        a layer by another one.

        Raises:
            Invalid: A layer wrote to a variable there.
        """
        for variable in self.inside:
            allowed = "is written to inside of a condition or a loop, which cannot be followed"
            raise Invalid("model", variable.path, allowed)

    def wrote(self, variable: Any) -> bool:
        """Returns whether a layer wrote to this variable and the model does not list it."""
        return any(v is variable for v in self.unlisted)

    def writes(self, variable: Any) -> list[Any]:
        """Returns the values that were written to a weight, in order."""
        return self._writes.get(id(variable), [])

    def written(self) -> list[tuple[Any, Any]]:
        """Returns (weight, last written value) for each weight that was written to."""
        return [(self._weights[key], values[-1]) for key, values in self._writes.items()]
