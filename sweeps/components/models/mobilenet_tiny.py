"""MobileNet for small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.convolutions import classify, conv, norm, relu
from masksweep.sweeps.components.models.base import Model, require_image

BLOCKS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5,
          (1024, 2), (1024, 1)]  # fmt: skip
"""Filters and stride of each block, as in table 1 of the paper."""


@register
@dataclass(frozen=True)
class MobileNetTiny(Model):
    """MobileNet (version 1) for small images: `conv`, 13 blocks, and `output`.

    A block filters each channel by itself, in `block_1_depthwise`, and then combines the channels,
    in `block_1_pointwise`. The first convolution has stride 1, not 2: the paper's images have 224 x
    224 pixels. The number of weights is that of the paper: 4.2 million with width 1, and 0.5
    million with width 0.25, for 1000 classes.

    Reference:
        https://arxiv.org/abs/1704.04861

    Example:
        >>> model = MobileNetTiny().build((32, 32, 3), 10)
        >>> list(model.get_layer("block_2_pointwise").kernel.shape)
        [1, 1, 16, 32]
    """

    name: ClassVar[str] = "mobilenet_tiny"
    gains_by_xla: ClassVar[bool] = False
    width: float = 0.25
    """Width multiplier: factor of the number of filters of every layer."""

    def __post_init__(self) -> None:
        fits = self.width >= 1 / 32  # the first convolution has 32 filters
        require(fits, "width", self.width, "1/32 or more")

    @property
    def has_statistics(self) -> bool:
        return True

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        require_image(inputs, 8)
        image = keras.Input(inputs)
        y = relu(norm(conv(image, int(32 * self.width), 3, "conv"), "norm"), "relu")
        for number, (filters, stride) in enumerate(BLOCKS, start=1):
            name = f"block_{number}"
            y = _depthwise(y, stride, f"{name}_depthwise")
            y = relu(norm(y, f"{name}_norm_1"), f"{name}_relu_1")
            y = conv(y, int(filters * self.width), 1, f"{name}_pointwise")
            y = relu(norm(y, f"{name}_norm_2"), f"{name}_relu_2")
        return keras.Model(image, classify(y, outputs), name="mobilenet_tiny")


def _depthwise(y: Any, stride: int, name: str) -> Any:
    """Adds a convolution of each channel by itself. `y` is `[batch, height, width, channels]`."""
    import keras

    if stride > 1:
        y = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(y)
    return keras.layers.DepthwiseConv2D(
        3,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        use_bias=False,
        # a unit has 9 inputs; Keras counts 9 as the outputs of this kernel, [3, 3, channels, 1]
        depthwise_initializer=keras.initializers.VarianceScaling(2.0, "fan_out"),
        name=name,
    )(y)
