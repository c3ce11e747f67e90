"""The base class of models."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, ClassVar, Literal

from masksweep.strategies.core import keras_internals
from masksweep.strategies.errors import require

Activation = Literal["relu", "tanh", "sigmoid", "elu", "gelu", "linear"]


Constraint = Literal["max_norm", "non_neg", "unit_norm"]


Init = Literal["keras", "torch"]


class Model:
    """The base class of models. Subclasses are frozen dataclasses that implement `network`.

    The outputs of a network are logits for classification and labels, and values for regression.
    """

    name: ClassVar[str]
    gains_by_xla: ClassVar[bool] = True
    """Whether XLA makes a training step on a CPU faster. It does not for convolutions."""
    takes_several: ClassVar[bool] = False
    """Whether the model can have several inputs or outputs. `network` then gets a dict of shapes by
    the names of the inputs, and a dict of numbers by the names of the outputs, where the data have
    several. The model takes and returns dicts with these names, or has inputs and output layers of
    these names."""
    takes_policy: ClassVar[bool] = True
    """Whether its layers get the global dtype policy of Keras."""
    init: Init = "keras"
    """Whether initial values are drawn as in Keras by default, or as in PyTorch."""

    @property
    def has_statistics(self) -> bool:
        """Whether training updates non-trainable weights of the model, such as moving means."""
        return False

    @property
    def drawn(self) -> bool:
        """Whether Keras' initializers draw the initial values, so that they follow from a seed."""
        return True

    @property
    def layers_origin(self) -> str:
        """Origin of the code of layers that belong to no component. Empty if there are none."""
        return ""

    def build(self, inputs: Any, outputs: Any) -> Any:
        """Builds a Keras model, `[batch, *inputs] -> [batch, outputs]`.

        The initial values follow from Keras' global seed; see `keras.utils.set_random_seed`.

        Args:
            inputs: Shape of one sample, or the shapes by the names of several inputs.
            outputs: Number of outputs, or the numbers by the names of several outputs.
        """
        model = self.network(inputs, outputs)
        if self.init == "torch":
            initialize_as_torch(model)
        return model

    @staticmethod
    def as_sequence(inputs: tuple[int, ...]) -> tuple[int, int]:
        """Returns the shape `(steps, channels)` in which a layer of sequences takes the inputs.

        A vector has one channel. The rows of an image are the steps, and all values of a row are
        the channels.

        Args:
            inputs: Shape of one sample.
        """
        return inputs[0], prod(inputs[1:])

    def network(self, inputs: Any, outputs: Any) -> Any:
        """Builds the model with Keras' own initial values. The arguments are those of `build`."""
        raise NotImplementedError


def require_image(inputs: tuple[int, ...], side: int) -> None:
    """Checks that a sample is an image.

    Args:
        inputs: Shape of one sample.
        side: Smallest height and width that the model can take.

    Raises:
        Invalid: The shape is not `[height, width, channels]`, or the image is smaller.
    """
    is_image = len(inputs) == 3 and min(inputs[:2]) >= side
    allowed = f"images [height, width, channels] of {side} x {side} pixels or more"
    require(is_image, "inputs", inputs, allowed)


def initialize_as_torch(model: Any) -> None:
    """Draws all weights and biases again as PyTorch does, from U(-b, b) with b = 1/sqrt(fan_in).

    For recurrent layers b = 1/sqrt(units). Published results depend on these values.
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
    """Yields the layers within a layer that have no inner layers."""
    inner = keras_internals.inner_layers(layer)
    for part in inner:
        yield from _leaves(part)
    if not inner:
        yield layer
