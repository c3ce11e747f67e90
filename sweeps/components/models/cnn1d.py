"""A network of strided Conv1D layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.models.base import Activation, Init, Model


@register
@dataclass(frozen=True)
class CNN1D(Model):
    """Strided Conv1D layers `conv_1`, `conv_2`, ..., flattened, and `output`.

    The defaults are the network of the paper on MNIST-1D (Greydanus 2020): 25 channels, kernels of
    size 5, 3, 3, stride 2, and one step of padding on both sides.

    Reference:
        https://arxiv.org/abs/2011.14439
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
        if len(inputs) != 2:
            layers.append(keras.layers.Reshape(self.as_sequence(inputs), name="channels"))
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
