"""LeNet-5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from masksweep.strategies.registry import register
from masksweep.sweeps.components.models.base import Model, require_image

Form = Literal["lecun", "caffe"]
SMALLEST_SIDE = {"lecun": 12, "caffe": 16}
"""Smallest height and width of an image, by form: smaller ones leave nothing to pool."""


@register
@dataclass(frozen=True)
class LeNet5(Model):
    """LeNet-5: `conv_1`, `conv_2`, Dense layers `hidden_1`, ..., and `output`.

    Two networks have this name. For MNIST, 28 x 28 pixels and 10 classes:

    - `lecun`: that of the paper, with tanh and mean pooling; 6 and 16 filters, 120 and 84 units.
      61,706 weights: each filter of `conv_2` sees all 6 maps, and `output` is a Dense layer.
    - `caffe`: that of most papers on pruning (Han et al. 2015: 431 thousand weights), with ReLU
      and max pooling; 20 and 50 filters, 500 units. 431,080 weights.

    Reference:
        http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf, https://arxiv.org/abs/1506.02626

    Example:
        >>> LeNet5().build((28, 28, 1), 10).count_params()
        61706
    """

    name: ClassVar[str] = "lenet5"
    gains_by_xla: ClassVar[bool] = False
    form: Form = "lecun"

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        require_image(inputs, SMALLEST_SIDE[self.form])
        if self.form == "lecun":
            filters, activation = (6, 16), "tanh"
            hidden: tuple[int, ...] = (120, 84)
            pooling, padding = keras.layers.AveragePooling2D, "same"
        else:
            filters, hidden, activation = (20, 50), (500,), "relu"
            pooling, padding = keras.layers.MaxPooling2D, "valid"
        # in Caffe's network only the Dense layer has an activation
        conv_activation = activation if self.form == "lecun" else None
        layers = [keras.Input(inputs)]
        # the paper's images of 28 x 28 pixels are padded to 32 x 32, as `same` does
        for i, (count, pad) in enumerate(zip(filters, (padding, "valid"), strict=True), start=1):
            layers.append(
                keras.layers.Conv2D(
                    count, 5, padding=pad, activation=conv_activation, name=f"conv_{i}"
                )
            )
            layers.append(pooling(2, name=f"pool_{i}"))
        layers.append(keras.layers.Flatten(name="flatten"))
        for i, units in enumerate(hidden, start=1):
            layers.append(keras.layers.Dense(units, activation=activation, name=f"hidden_{i}"))
        layers.append(keras.layers.Dense(outputs, name="output"))
        return keras.Sequential(layers, name="lenet5")
