"""The residual networks for CIFAR of He et al. 2015."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.convolutions import classify, conv, norm, relu
from masksweep.sweeps.components.models.base import Model, require_image


@register
@dataclass(frozen=True)
class ResNet(Model):
    """A residual network for CIFAR: `conv`, three stages of blocks, and `output`.

    A block has two convolutions of 3 x 3, such as `stage_1_block_2_conv_1`, each with batch
    normalization. The second and third stage halve the image and double the filters. Their first
    shortcut takes every second pixel and adds channels of zeros (option A of the paper), so
    shortcuts have no weights. ResNet-20 has 269,722 weights for CIFAR-10.

    Reference:
        https://arxiv.org/abs/1512.03385, section 4.2

    Example:
        >>> model = ResNet(depth=20).build((32, 32, 3), 10)
        >>> sum(v.numpy().size for v in model.trainable_variables)
        269722
    """

    name: ClassVar[str] = "resnet"
    gains_by_xla: ClassVar[bool] = False
    depth: int = 20
    """Number of layers with a kernel: 6 n + 2 for n blocks in each stage, as 20, 32, 44, 56."""
    width: int = 16
    """Number of filters of the first stage."""

    def __post_init__(self) -> None:
        fits = self.depth >= 8 and self.depth % 6 == 2
        require(fits, "depth", self.depth, "6 n + 2, as 20, 32, 44, 56")
        require(self.width >= 1, "width", self.width, "1 or more")

    @property
    def has_statistics(self) -> bool:
        return True

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        require_image(inputs, 4)
        image = keras.Input(inputs)
        y = relu(norm(conv(image, self.width, 3, "conv"), "norm"), "relu")
        for stage in (1, 2, 3):
            for block in range(1, self.depth // 6 + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                y = _block(y, self.width * 2 ** (stage - 1), stride, f"stage_{stage}_block_{block}")
        return keras.Model(image, classify(y, outputs), name="resnet")


def _block(x: Any, filters: int, stride: int, name: str) -> Any:
    """Adds a block. `x` is `[batch, height, width, channels]`."""
    import keras

    y = conv(x, filters, 3, f"{name}_conv_1", stride)
    y = relu(norm(y, f"{name}_norm_1"), f"{name}_relu_1")
    y = norm(conv(y, filters, 3, f"{name}_conv_2"), f"{name}_norm_2")
    if stride > 1:
        x = _shortcut(x, filters, stride, f"{name}_shortcut")
    return relu(keras.layers.Add(name=f"{name}_add")([x, y]), f"{name}_relu_2")


def _shortcut(x: Any, filters: int, stride: int, name: str) -> Any:
    """Adds a shortcut without weights: every `stride`-th pixel, and zeros as further channels.

    Only layers of Keras are used, so that a saved model opens without Masksweep.
    """
    import keras

    x = keras.layers.AveragePooling2D(1, strides=stride, name=f"{name}_pixels")(x)
    # ZeroPadding2D pads the first two axes of a sample, so the channels go there and back
    x = keras.layers.Permute((3, 1, 2), name=f"{name}_channels_first")(x)
    padding = ((0, filters - x.shape[1]), (0, 0))
    x = keras.layers.ZeroPadding2D(padding, data_format="channels_last", name=f"{name}_zeros")(x)
    return keras.layers.Permute((2, 3, 1), name=f"{name}_channels_last")(x)
