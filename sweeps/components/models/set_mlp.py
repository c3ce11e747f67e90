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
    With `straight_through`, its gradient is that of a network without dropout: a unit that is
    dropped learns as if it were kept, because the tutorial's backpropagation does not multiply by
    the units that were dropped.

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
    straight_through: bool = True
    """Whether the gradient passes dropped units as if they were kept, as in the tutorial."""
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

        def drop_out(x: Any, i: int) -> Any:
            kept = keras.layers.Dropout(self.dropout, name=f"dropout_{i}")(x)
            kept = keras.layers.Rescaling(1 - self.dropout, name=f"scale_{i}")(kept)
            return x + keras.ops.stop_gradient(kept - x) if self.straight_through else kept

        x = given = keras.Input(inputs)
        if len(inputs) > 1:
            x = keras.layers.Flatten(name="flatten")(x)
        for i, units in enumerate(self.hidden, start=1):
            x = dense(units, f"hidden_{i}")(x)
            if self.dropout:
                x = drop_out(x, i)
        return keras.Model(given, dense(outputs, "output", None)(x), name="set_mlp")
