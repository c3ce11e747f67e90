"""Small models with masked weights, with which every strategy is checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
from keras import layers

from masksweep.strategies.patterns import Pattern
from masksweep.strategies.patterns.random import Random


def network(
    hidden: Callable[[], Any] = lambda: layers.Dense(8, name="masked", bias_initializer="uniform"),
    shape: tuple[int, ...] = (6,),
    **output: Any,
) -> Any:
    """Returns a small model with a `hidden` layer, layers with a state, and a Dense `output` layer.

    The initial values are always the same. The activation is a LeakyReLU, so every kept weight has
    a gradient.

    Args:
        hidden: Makes the layer that is masked.
        shape: Shape of the inputs, without the batch.
        **output: More arguments of the output layer.
    """
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [
            keras.Input(shape),
            hidden(),
            layers.LeakyReLU(name="bend"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.2, seed=3, name="drop"),
            layers.Flatten(name="flat"),
            layers.Dense(4, name="output", bias_initializer="uniform", **output),
        ]
    )


def nested() -> Any:
    """Returns a model whose masked layer is inside an inner model."""
    inner = [keras.Input((6,)), layers.Dense(8, name="masked")]
    return network(lambda: keras.Sequential(inner, name="inner"))


def shared() -> Any:
    """Returns a model that applies the masked layer twice."""
    keras.utils.set_random_seed(7)
    start = keras.Input((6,))
    masked = layers.Dense(6, name="masked")
    hidden = layers.BatchNormalization(name="norm")(masked(start + masked(start)))
    return keras.Model(start, layers.Dense(4, name="output")(hidden))


class Decoder(layers.Layer):  # type: ignore[misc]
    """Multiplies by a transposed kernel: a variable, or the kernel of another layer."""

    def __init__(self, source: Any) -> None:
        super().__init__(name="decoder")
        self.given = source

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(x, keras.ops.transpose(getattr(self.given, "kernel", self.given)))


def tied(of_variable: bool) -> Any:
    """Returns a model in which another layer also uses the masked kernel (tied weights).

    Args:
        of_variable: Whether the other layer has the kernel itself, else the layer that owns it.
    """
    keras.utils.set_random_seed(7)
    start = keras.Input((6,))
    masked = layers.Dense(8, name="masked")
    hidden = layers.BatchNormalization(name="norm")(masked(start))
    decoded = Decoder(masked.kernel if of_variable else masked)(hidden)
    return keras.Model(start, layers.Dense(4, name="output")(decoded))


@dataclass(frozen=True, eq=False)
class Situation:
    """A model with its masked weights and pattern. If one is None, that of the case is used."""

    model: Callable[[], Any] = network
    targets: Sequence[str] | None = None
    pattern: Pattern | None = None

    def start(self) -> Any:
        """Returns the model with its initial values. It is built once, because that takes long."""
        model, values = self._built
        for variable, value in zip(model.variables, values, strict=True):
            variable.assign(value)
        return model

    @cached_property
    def _built(self) -> tuple[Any, list[Any]]:
        model = self.model()
        return model, [v.numpy() for v in model.variables]


NETWORK = Situation()
"""`network`, with the targets and the pattern of the case."""


def layer(make: Callable[[], Any], *shape: int, weight: str = "kernel") -> Situation:
    """Returns the situation that one weight of the hidden layer of `network` is masked."""
    return Situation(lambda: network(make, shape), [f"masked/{weight}"])


SITUATIONS: dict[str, Situation] = {
    "conv1d": layer(lambda: layers.Conv1D(4, 3, name="masked"), 6, 3),
    "conv2d": layer(lambda: layers.Conv2D(4, 2, name="masked"), 4, 4, 3),
    "depthwise": layer(
        lambda: layers.DepthwiseConv2D(2, depth_multiplier=2, name="masked"), 4, 4, 3
    ),
    "einsum": layer(
        lambda: layers.EinsumDense("abc,cd->abd", output_shape=(5, 8), name="masked"), 5, 6
    ),
    "embedding": layer(lambda: layers.Embedding(3, 4, name="masked"), 5, weight="embeddings"),
    "sequence": layer(lambda: layers.Dense(8, name="masked"), 5, 6),
    "hidden": Situation(targets=["masked/kernel"]),
    "bias": Situation(targets=["masked/bias"]),
    "nested": Situation(nested, ["inner/masked/kernel"]),
    "shared": Situation(shared, ["masked/kernel"]),
    "tied to a layer": Situation(lambda: tied(of_variable=False), ["masked/kernel"]),
    "tied to a variable": Situation(lambda: tied(of_variable=True), ["masked/kernel"]),
    "scattered": Situation(pattern=Random(0.5)),
    "softmax": Situation(lambda: network(activation="softmax"), ["output/kernel"]),
    "regularized": Situation(
        lambda: network(
            lambda: layers.Dense(8, name="masked", kernel_regularizer="l2"),
            kernel_regularizer="l2",
        )
    ),
    "constrained": Situation(
        lambda: network(
            lambda: layers.Dense(8, name="masked", kernel_constraint="max_norm"),
            kernel_constraint="max_norm",
        )
    ),
}
