"""A network of Dense layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.models.base import Activation, Constraint, Init, Model


@register
@dataclass(frozen=True)
class MLP(Model):
    """Dense layers `hidden_1`, `hidden_2`, ... and `output`."""

    name: ClassVar[str] = "mlp"
    hidden: tuple[int, ...] = (100, 100)
    activation: Activation = "relu"
    output_activation: Activation = "linear"
    """Classification needs logits, so keep `linear` there."""
    dropout: float = 0.0
    batch_norm: bool = False
    residual: bool = False
    """Whether each hidden layer after the first adds its input to its output.

    All hidden layers must then have the same width.
    """
    l2: float = 0.0
    """Factor of an L2 penalty on every kernel."""
    constraint: Constraint | None = None
    """Keras constraint on every kernel, with its default settings."""
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
            layer_input, y = y, dense(units, f"hidden_{i}")(y)
            if self.batch_norm:
                y = keras.layers.BatchNormalization(name=f"norm_{i}")(y)
            y = keras.layers.Activation(self.activation, name=f"activation_{i}")(y)
            if self.residual and i > 1:
                y = keras.layers.Add(name=f"residual_{i}")([layer_input, y])
            if self.dropout:
                y = keras.layers.Dropout(self.dropout, name=f"dropout_{i}")(y)
        end = dense(outputs, "output", self.output_activation)(y)
        return keras.Model(start, end, name="mlp")
