"""The network of SET's tutorial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.models.base import Model


@register
@dataclass(frozen=True)
class SETMLP(Model):
    """The network of SET's tutorial: Dense layers `hidden_1`, `hidden_2`, ... and `output`.

    It is made for sparse kernels. Weights start from a normal distribution that is three times as
    wide as Glorot's for 1,000 units, so that the signal passes layers that keep few of them.
    Dropout follows each hidden layer. Unlike Keras' own, it does not scale up what it keeps in
    training, but scales down all in evaluation; so it is followed by a factor of `1 - dropout`.

    With three hidden layers of 1,000 units it has 2,797,010 weights for Fashion-MNIST.

    Raises:
        Invalid: A setting is outside its range.

    Example:
        >>> SETMLP().build((28, 28, 1), 10).count_params()
        2797010

    Reference:
        https://github.com/dcmocanu/sparse-evolutionary-artificial-neural-networks, the tutorial of
        ECML PKDD 2019.
    """

    name: ClassVar[str] = "set_mlp"
    hidden: tuple[int, ...] = (1000, 1000, 1000)
    dropout: float = 0.2
    deviation: float = 0.1
    """Standard deviation of the normal distribution from which the kernels are drawn."""

    def __post_init__(self) -> None:
        require(
            all(units >= 1 for units in self.hidden),
            "hidden", list(self.hidden), "widths of 1 or more",
        )  # fmt: skip
        require(0 <= self.dropout < 1, "dropout", self.dropout, "a number in [0, 1)")
        require(self.deviation > 0, "deviation", self.deviation, "above 0")

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        def dense(units: int, name: str, activation: str | None = "relu") -> Any:
            kernel = keras.initializers.RandomNormal(stddev=self.deviation)
            return keras.layers.Dense(
                units, activation=activation, kernel_initializer=kernel, name=name
            )

        layers = [keras.Input(inputs)]
        if len(inputs) > 1:
            layers.append(keras.layers.Flatten(name="flatten"))
        for i, units in enumerate(self.hidden, start=1):
            layers.append(dense(units, f"hidden_{i}"))
            if self.dropout:
                layers.append(keras.layers.Dropout(self.dropout, name=f"dropout_{i}"))
                layers.append(keras.layers.Rescaling(1 - self.dropout, name=f"scale_{i}"))
        return keras.Sequential([*layers, dense(outputs, "output", None)], name="set_mlp")
