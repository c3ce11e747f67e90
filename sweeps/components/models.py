"""The networks that a config can name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np

from masksweep.strategies.base import require

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
    inner = layer._layers
    for part in inner:
        yield from _leaves(part)
    if not inner:
        yield layer


@dataclass(frozen=True)
class MLP(Model):
    """Dense layers `hidden_1`, `hidden_2`, ... and `output`."""

    name: ClassVar[str] = "mlp"
    hidden: tuple[int, ...] = (100, 100)
    activation: Activation = "relu"
    output_activation: Activation = "linear"
    """Classification takes logits: leave it `linear` there."""
    dropout: float = 0.0
    batch_norm: bool = False
    residual: bool = False
    """Every hidden layer but the first adds its input to its output; all of one width then."""
    l2: float = 0.0
    """L2 penalty on every kernel."""
    constraint: Constraint | None = None
    """Keras' constraint on every kernel, in its default setting."""
    init: Init = "keras"

    def __post_init__(self) -> None:
        require(
            all(h >= 1 for h in self.hidden), "hidden", list(self.hidden), "widths of 1 or more"
        )
        require(0 <= self.dropout < 1, "dropout", self.dropout, "a number in [0, 1)")
        require(self.l2 >= 0, "l2", self.l2, "0 or above")
        one_width = not self.residual or len(set(self.hidden)) == 1
        require(one_width, "hidden", list(self.hidden), "of one width with residual")

    @property
    def has_statistics(self) -> bool:
        return self.batch_norm

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        def dense(units: int, name: str, activation: Activation = "linear") -> Any:
            return keras.layers.Dense(
                units,
                activation=activation,
                kernel_regularizer=keras.regularizers.L2(self.l2) if self.l2 else None,
                kernel_constraint=self.constraint,
                name=name,
            )

        start = y = keras.Input(inputs)
        if len(inputs) > 1:
            y = keras.layers.Flatten(name="flatten")(y)
        for i, units in enumerate(self.hidden, start=1):
            before, y = y, dense(units, f"hidden_{i}")(y)
            if self.batch_norm:
                y = keras.layers.BatchNormalization(name=f"norm_{i}")(y)
            y = keras.layers.Activation(self.activation, name=f"activation_{i}")(y)
            if self.residual and i > 1:
                y = keras.layers.Add(name=f"residual_{i}")([before, y])
            if self.dropout:
                y = keras.layers.Dropout(self.dropout, name=f"dropout_{i}")(y)
        end = dense(outputs, "output", self.output_activation)(y)
        return keras.Model(start, end, name="mlp")


@dataclass(frozen=True)
class CNN1D(Model):
    """Strided Conv1D layers `conv_1`, `conv_2`, ..., flattened, and `output`.

    The defaults are the network of MNIST-1D's authors (Greydanus 2020): 25 channels, kernels
    5, 3, 3, stride 2, one step of padding on both sides.
    """

    name: ClassVar[str] = "cnn1d"
    gains_by_xla: ClassVar[bool] = False
    channels: int = 25
    kernels: tuple[int, ...] = (5, 3, 3)
    stride: int = 2
    activation: Activation = "relu"
    init: Init = "keras"

    def __post_init__(self) -> None:
        require(self.channels >= 1, "channels", self.channels, "1 or more")
        require(all(k >= 1 for k in self.kernels), "kernels", list(self.kernels), "1 or more")
        require(self.stride >= 1, "stride", self.stride, "1 or more")

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        layers = [keras.Input(inputs)]
        if len(inputs) == 1:
            layers.append(keras.layers.Reshape((*inputs, 1), name="channels"))
        for i, kernel in enumerate(self.kernels, start=1):
            layers.append(keras.layers.ZeroPadding1D(1, name=f"pad_{i}"))
            layers.append(
                keras.layers.Conv1D(
                    self.channels,
                    kernel,
                    strides=self.stride,
                    activation=self.activation,
                    name=f"conv_{i}",
                )
            )
        layers.append(keras.layers.Flatten(name="flatten"))
        layers.append(keras.layers.Dense(outputs, name="output"))
        return keras.Sequential(layers, name="cnn1d")


@dataclass(frozen=True)
class GRU(Model):
    """A bidirectional GRU whose states of all steps are flattened, and `output`.

    The default width is that of MNIST-1D's authors (Greydanus 2020).
    """

    name: ClassVar[str] = "gru"
    units: int = 6
    init: Init = "keras"

    def __post_init__(self) -> None:
        require(self.units >= 1, "units", self.units, "1 or more")

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        layers = [keras.Input(inputs)]
        if len(inputs) == 1:
            layers.append(keras.layers.Reshape((*inputs, 1), name="sequence"))
        one_way = keras.layers.GRU(self.units, return_sequences=True, name="gru")
        layers.append(keras.layers.Bidirectional(one_way, name="both_ways"))
        layers.append(keras.layers.Flatten(name="flatten"))
        layers.append(keras.layers.Dense(outputs, name="output"))
        return keras.Sequential(layers, name="gru")


@dataclass(frozen=True)
class Logistic(Model):
    """One Dense layer, `output`."""

    name: ClassVar[str] = "logistic"
    init: Init = "keras"

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        return MLP(hidden=()).network(inputs, outputs)


@dataclass(frozen=True)
class Explicit(Model):
    """Dense layers whose initial values are written out: `hidden_1`, ..., and `output`."""

    name: ClassVar[str] = "explicit"
    kernels: tuple[tuple[tuple[float, ...], ...], ...] = ()
    """`[inputs, units]` for each layer."""
    biases: tuple[tuple[float, ...], ...] | None = None
    """`[units]` for each layer; null starts them at 0."""
    activation: Activation = "sigmoid"
    """Of every layer, the last one too."""

    def __post_init__(self) -> None:
        require(bool(self.kernels), "kernels", [], "nested lists of numbers, one for each layer")
        for number, kernel in enumerate(self.kernels):
            whole = bool(kernel) and len({len(row) for row in kernel}) == 1 and bool(kernel[0])
            require(whole, "kernels", kernel, "rows of one length")
            fits = number == 0 or len(kernel) == len(self.kernels[number - 1][0])
            require(fits, "kernels", kernel, "a row for each unit of the layer before")
        if self.biases is not None:
            fits = [len(b) for b in self.biases] == [len(kernel[0]) for kernel in self.kernels]
            require(fits, "biases", self.biases, "a list for each layer, a number for each unit")

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        given = (*inputs, outputs)
        fits = given == (len(self.kernels[0]), len(self.kernels[-1][0]))
        require(fits, "kernels", self.kernels, f"from and to {given}, as the data")
        layers: list[Any] = [keras.Input(inputs)]
        names = [*(f"hidden_{i}" for i in range(1, len(self.kernels))), "output"]
        for name, kernel in zip(names, self.kernels, strict=True):
            units = len(kernel[0])
            layers.append(keras.layers.Dense(units, activation=self.activation, name=name))
        model = keras.Sequential(layers, name="explicit")
        for number, layer in enumerate(model.layers):
            layer.kernel.assign(np.asarray(self.kernels[number], np.float32))
            if self.biases is not None:
                layer.bias.assign(np.asarray(self.biases[number], np.float32))
        return model


MODELS: dict[str, type[Model]] = {c.name: c for c in (CNN1D, Explicit, GRU, Logistic, MLP)}
