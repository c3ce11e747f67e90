"""A network with a bidirectional GRU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.models.base import Init, Model


@register
@dataclass(frozen=True)
class GRU(Model):
    """A bidirectional GRU, the flattened states of all its steps, and `output`.

    The default number of units is that of the paper on MNIST-1D (Greydanus 2020).

    Reference:
        https://arxiv.org/abs/2011.14439
    """

    name: ClassVar[str] = "gru"
    units: int = 6
    init: Init = "keras"

    def __post_init__(self) -> None:
        require(self.units >= 1, "units", self.units, "1 or more")

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        layers = [keras.Input(inputs)]
        if len(inputs) != 2:
            layers.append(keras.layers.Reshape(self.as_sequence(inputs), name="sequence"))
        one_way = keras.layers.GRU(self.units, return_sequences=True, name="gru")
        layers.append(keras.layers.Bidirectional(one_way, name="both_ways"))
        layers.append(keras.layers.Flatten(name="flatten"))
        layers.append(keras.layers.Dense(outputs, name="output"))
        return keras.Sequential(layers, name="gru")
