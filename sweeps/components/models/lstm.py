"""A network of stacked LSTM layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.models.base import Model


@register
@dataclass(frozen=True)
class LSTM(Model):
    """LSTM layers `lstm_1`, `lstm_2`, ..., each reads the states of the one before, and `output`.

    `output` reads the last state of the last layer. The forget gate's bias starts at 1, as Keras
    and Jozefowicz et al. 2015 have it.

    Reference:
        https://www.bioinf.jku.at/publications/older/2604.pdf, https://arxiv.org/abs/1303.5778

    Example:
        >>> [list(v.shape) for v in LSTM(units=(8,)).build((20, 3), 4).get_layer("lstm_1").weights]
        [[3, 32], [8, 32], [32]]
    """

    name: ClassVar[str] = "lstm"
    units: tuple[int, ...] = (32, 32)
    """Number of units of each layer."""

    def __post_init__(self) -> None:
        fits = bool(self.units) and all(u >= 1 for u in self.units)
        require(fits, "units", list(self.units), "one number or more, each 1 or more")

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        allowed = "a sequence [steps] or [steps, features]"
        require(len(inputs) in (1, 2), "inputs", inputs, allowed)
        layers = [keras.Input(inputs)]
        if len(inputs) == 1:
            layers.append(keras.layers.Reshape(self.as_sequence(inputs), name="sequence"))
        for i, units in enumerate(self.units, start=1):
            states = i < len(self.units)
            layers.append(keras.layers.LSTM(units, return_sequences=states, name=f"lstm_{i}"))
        layers.append(keras.layers.Dense(outputs, name="output"))
        return keras.Sequential(layers, name="lstm")
