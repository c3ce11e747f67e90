"""The networks that a config can name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from strategies.base import require

Activation = Literal["relu", "tanh", "sigmoid", "elu", "gelu", "linear"]


class Model:
    """A network by its shape. Subclasses are frozen dataclasses; outputs are logits or values."""

    name: ClassVar[str]
    gains_by_xla: ClassVar[bool] = True
    """Whether a training step on a CPU is faster under XLA (convolutions are not)."""

    def build(self, inputs: tuple[int, ...], outputs: int) -> Any:
        """A built Keras model, `[batch, *inputs] -> [batch, outputs]`.

        Its initial values come from Keras' global seed.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class MLP(Model):
    """Dense layers `hidden_1`, `hidden_2`, ... and `output`."""

    name: ClassVar[str] = "mlp"
    hidden: tuple[int, ...] = (100, 100)
    activation: Activation = "relu"
    dropout: float = 0.0
    batch_norm: bool = False

    def __post_init__(self) -> None:
        require(
            all(h >= 1 for h in self.hidden), "hidden", list(self.hidden), "widths of 1 or more"
        )
        require(0 <= self.dropout < 1, "dropout", self.dropout, "a number in [0, 1)")

    def build(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        layers = [keras.Input(inputs)]
        if len(inputs) > 1:
            layers.append(keras.layers.Flatten(name="flatten"))
        for i, units in enumerate(self.hidden, start=1):
            layers.append(keras.layers.Dense(units, name=f"hidden_{i}"))
            if self.batch_norm:
                layers.append(keras.layers.BatchNormalization(name=f"norm_{i}"))
            layers.append(keras.layers.Activation(self.activation, name=f"activation_{i}"))
            if self.dropout:
                layers.append(keras.layers.Dropout(self.dropout, name=f"dropout_{i}"))
        layers.append(keras.layers.Dense(outputs, name="output"))
        return keras.Sequential(layers, name="mlp")


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

    def __post_init__(self) -> None:
        require(self.channels >= 1, "channels", self.channels, "1 or more")
        require(all(k >= 1 for k in self.kernels), "kernels", list(self.kernels), "1 or more")
        require(self.stride >= 1, "stride", self.stride, "1 or more")

    def build(self, inputs: tuple[int, ...], outputs: int) -> Any:
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
class Logistic(Model):
    """One Dense layer, `output`."""

    name: ClassVar[str] = "logistic"

    def build(self, inputs: tuple[int, ...], outputs: int) -> Any:
        return MLP(hidden=()).build(inputs, outputs)


MODELS: dict[str, type[Model]] = {c.name: c for c in (CNN1D, Logistic, MLP)}
