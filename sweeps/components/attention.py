"""Layers that the models with attention share. Each function adds to a Functional model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def attention(y: Any, heads: int, name: str, initializer: Callable[[], Any]) -> Any:
    """Adds self-attention, whose heads share the width of the inputs.

    Args:
        y: `[batch, steps, width]`; the width must be a multiple of `heads`.
        heads: Number of heads.
        name: Name of the layer, as in `NAME/query/kernel`.
        initializer: Makes the initializer of the kernels. A function, because layers that share an
            initializer would get the same values.

    Returns:
        `[batch, steps, width]`.
    """
    import keras

    return keras.layers.MultiHeadAttention(
        heads, y.shape[-1] // heads, kernel_initializer=initializer(), name=name
    )(y, y)


def feed_forward(y: Any, activation: str, name: str, initializer: Callable[[], Any]) -> Any:
    """Adds two Dense layers, `NAME_hidden` and `NAME_output`, the same for each step.

    The first has four times as many units as the inputs are wide, as in the papers.

    Args:
        y: `[batch, steps, width]`.
        activation: Activation of the first layer.
        name: Prefix of the names of the layers.
        initializer: Makes the initializer of a kernel.

    Returns:
        `[batch, steps, width]`.
    """
    import keras

    width = y.shape[-1]
    y = keras.layers.Dense(
        4 * width, activation=activation, kernel_initializer=initializer(), name=f"{name}_hidden"
    )(y)
    return keras.layers.Dense(width, kernel_initializer=initializer(), name=f"{name}_output")(y)


def add(x: Any, y: Any, name: str) -> Any:
    """Adds a residual connection."""
    import keras

    return keras.layers.Add(name=name)([x, y])


def layer_norm(y: Any, name: str) -> Any:
    """Adds a layer normalization over the width, with the constant that PyTorch's models have."""
    import keras

    return keras.layers.LayerNormalization(epsilon=1e-6, name=name)(y)
