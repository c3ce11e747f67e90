"""The wide residual networks of Zagoruyko and Komodakis 2016."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.convolutions import classify, conv, norm, relu
from masksweep.sweeps.components.models.base import Model, require_image


@register
@dataclass(frozen=True)
class WideResNet(Model):
    """A wide residual network, WRN-depth-width: `conv`, three stages of blocks, and `output`.

    Batch normalization and ReLU come before each convolution. A block that changes the number of
    channels has a shortcut with a kernel of 1 x 1, such as `stage_2_block_1_shortcut`. The paper's
    dropout is left out. The default, WRN-22-2, is that of papers on sparse training. WRN-28-10 has
    36.5 million weights for CIFAR-10.

    Reference:
        https://arxiv.org/abs/1605.07146

    Example:
        >>> model = WideResNet(depth=16, width=1).build((32, 32, 3), 10)
        >>> list(model.get_layer("stage_3_block_2_conv_1").kernel.shape)
        [3, 3, 64, 64]
    """

    name: ClassVar[str] = "wide_resnet"
    gains_by_xla: ClassVar[bool] = False
    depth: int = 22
    """Number of convolutions: 6 n + 4 for n blocks in each stage, as 16, 22, 28, 40."""
    width: int = 2
    """Factor of the number of filters, which is 16, 32, 64 in the three stages."""

    def __post_init__(self) -> None:
        fits = self.depth >= 10 and self.depth % 6 == 4
        require(fits, "depth", self.depth, "6 n + 4, as 16, 22, 28, 40")
        require(self.width >= 1, "width", self.width, "1 or more")

    @property
    def has_statistics(self) -> bool:
        return True

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        require_image(inputs, 4)
        image = keras.Input(inputs)
        y = conv(image, 16, 3, "conv")
        for stage in (1, 2, 3):
            for block in range(1, (self.depth - 4) // 6 + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                filters = 16 * self.width * 2 ** (stage - 1)
                y = _block(y, filters, stride, f"stage_{stage}_block_{block}")
        y = relu(norm(y, "norm"), "relu")
        return keras.Model(image, classify(y, outputs), name="wide_resnet")


def _block(x: Any, filters: int, stride: int, name: str) -> Any:
    """Adds a block. `x` is `[batch, height, width, channels]`."""
    import keras

    y = relu(norm(x, f"{name}_norm_1"), f"{name}_relu_1")
    if x.shape[-1] != filters:
        x = conv(y, filters, 1, f"{name}_shortcut", stride)
    y = conv(y, filters, 3, f"{name}_conv_1", stride)
    y = relu(norm(y, f"{name}_norm_2"), f"{name}_relu_2")
    y = conv(y, filters, 3, f"{name}_conv_2")
    return keras.layers.Add(name=f"{name}_add")([x, y])
