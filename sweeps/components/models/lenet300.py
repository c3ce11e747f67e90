"""LeNet-300-100."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.registry import register
from masksweep.sweeps.components.models.base import Model


@register
@dataclass(frozen=True)
class LeNet300(Model):
    """LeNet-300-100: Dense layers `hidden_1` and `hidden_2`, of 300 and 100 units, and `output`.

    ReLU and Gaussian Glorot initial values are as in the paper on lottery tickets (Frankle and
    Carbin 2019). It has 266,610 weights for MNIST (784 inputs and 10 classes).

    Reference:
        http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf, https://arxiv.org/abs/1803.03635

    Example:
        >>> LeNet300().build((28, 28, 1), 10).count_params()
        266610
    """

    name: ClassVar[str] = "lenet300"

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        def dense(units: int, name: str, activation: str | None = "relu") -> Any:
            return keras.layers.Dense(
                units, activation=activation, kernel_initializer="glorot_normal", name=name
            )

        layers = [keras.Input(inputs)]
        if len(inputs) > 1:
            layers.append(keras.layers.Flatten(name="flatten"))
        layers += [dense(300, "hidden_1"), dense(100, "hidden_2"), dense(outputs, "output", None)]
        return keras.Sequential(layers, name="lenet300")
