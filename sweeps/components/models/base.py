"""The base class of models."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, ClassVar, Literal

from masksweep.strategies.core import keras_internals

Activation = Literal["relu", "tanh", "sigmoid", "elu", "gelu", "linear"]


Constraint = Literal["max_norm", "non_neg", "unit_norm"]


Init = Literal["keras", "torch"]


class Model:
    """A network by its shape. Subclasses are frozen dataclasses; outputs are logits or values."""

    name: ClassVar[str]
    gains_by_xla: ClassVar[bool] = True
    """Whether a training step on a CPU is faster under XLA (convolutions are not)."""
    init: Init = "keras"
    """Initial values as Keras draws them by default, or as PyTorch does."""

    @property
    def has_statistics(self) -> bool:
        """Whether it has non-trainable weights that are updated in training."""
        return False

    def build(self, inputs: tuple[int, ...], outputs: int) -> Any:
        """A built Keras model, `[batch, *inputs] -> [batch, outputs]`.

        Its initial values come from Keras' global seed.
        """
        model = self.network(inputs, outputs)
        if self.init == "torch":
            start_as_torch(model)
        return model

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        """The model with Keras' own initial values."""
        raise NotImplementedError


def start_as_torch(model: Any) -> None:
    """Draw all weights anew from U(-b, b) with b = 1/sqrt(fan_in), biases too, as PyTorch does.

    For recurrent layers b = 1/sqrt(units). Published results depend on it.
    """
    import keras

    for layer in _leaves(model):
        kernel = getattr(layer, "kernel", None)
        if kernel is not None:
            fan_in = getattr(layer, "units", 0) if "Cell" in type(layer).__name__ else 0
            bound = (fan_in or prod(kernel.shape[:-1])) ** -0.5
            for variable in layer.trainable_variables:
                variable.assign(keras.random.uniform(variable.shape, -bound, bound))


def _leaves(layer: Any) -> Iterator[Any]:
    inner = keras_internals.inner_layers(layer)
    for part in inner:
        yield from _leaves(part)
    if not inner:
        yield layer
