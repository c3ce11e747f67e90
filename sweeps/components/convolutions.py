"""Layers that convolutional models share. Each function adds one layer to a Functional model."""

from __future__ import annotations

from typing import Any


def conv(y: Any, filters: int, size: int, name: str, stride: int = 1) -> Any:
    """Adds a convolution without bias, whose kernel is drawn as in He et al. 2015.

    It pads with `size // 2` zeros on every side, as the papers' own code does. With a stride,
    Keras' `padding="same"` pads less before an axis than after it, so `NAME_pad` pads instead.

    Args:
        y: Images, `[batch, height, width, channels]`.
        filters: Number of filters.
        size: Height and width of the kernel; odd.
        name: Name of the layer.
        stride: Distance of two positions of the kernel.

    Returns:
        `[batch, ceil(height / stride), ceil(width / stride), filters]`.

    Reference:
        https://arxiv.org/abs/1502.01852
    """
    import keras

    if padded := stride > 1 and size > 1:
        y = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(y)
    return keras.layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding="valid" if padded else "same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(y)


def norm(y: Any, name: str) -> Any:
    """Adds a batch normalization with the constants of the papers' own code.

    Keras' default momentum of 0.99 needs some hundred steps until its averages are right, so short
    trainings would be evaluated with wrong statistics.
    """
    import keras

    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(y)


def relu(y: Any, name: str) -> Any:
    """Adds a ReLU."""
    import keras

    return keras.layers.Activation("relu", name=name)(y)


def classify(y: Any, outputs: int) -> Any:
    """Adds the mean over all positions, and a Dense layer `output`.

    Args:
        y: `[batch, height, width, channels]`.
        outputs: Number of outputs.

    Returns:
        `[batch, outputs]`.
    """
    import keras

    y = keras.layers.GlobalAveragePooling2D(name="pool")(y)
    return keras.layers.Dense(outputs, kernel_initializer="he_normal", name="output")(y)
