"""A network whose initial values are written in the config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.models.base import Activation, Model


@register
@dataclass(frozen=True)
class Explicit(Model):
    """Dense layers `hidden_1`, ..., and `output`, with initial values from the config."""

    name: ClassVar[str] = "explicit"
    kernels: tuple[tuple[tuple[float, ...], ...], ...] = ()
    """The kernel of each layer, `[inputs, units]`."""
    biases: tuple[tuple[float, ...], ...] | None = None
    """The bias of each layer, `[units]`. With null all biases start at 0."""
    activation: Activation = "sigmoid"
    """The activation of every layer, including the last one."""

    def __post_init__(self) -> None:
        require(bool(self.kernels), "kernels", [], "nested lists of numbers, one for each layer")
        for number, kernel in enumerate(self.kernels):
            is_matrix = bool(kernel) and len({len(row) for row in kernel}) == 1 and bool(kernel[0])
            require(is_matrix, "kernels", kernel, "rows of one length")
            fits = number == 0 or len(kernel) == len(self.kernels[number - 1][0])
            require(fits, "kernels", kernel, "a row for each unit of the layer before")
        if self.biases is not None:
            fits = [len(b) for b in self.biases] == [len(kernel[0]) for kernel in self.kernels]
            require(fits, "biases", self.biases, "a list for each layer, a number for each unit")

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        data_sizes = (*inputs, outputs)
        fits = data_sizes == (len(self.kernels[0]), len(self.kernels[-1][0]))
        require(fits, "kernels", self.kernels, f"from and to {data_sizes}, as the data")
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
