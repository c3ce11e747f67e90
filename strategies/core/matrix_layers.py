"""Layers that multiply by their kernel as by a matrix: Dense, EinsumDense and convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from masksweep.strategies.plan import MATRIX_LAYERS


def not_a_matrix(layer: Any) -> str:
    """Returns why a layer does not multiply by its kernel as by a matrix; empty if it does.

    Args:
        layer: A built layer. If its class is not in `MATRIX_LAYERS`, the result is empty too.

    Example:
        >>> import keras
        >>> not_a_matrix(keras.layers.Conv2D(4, 3, groups=2))
        'its layer has groups=2, so it multiplies by several matrices'
    """
    import keras

    kind = type(layer).__name__
    if kind not in MATRIX_LAYERS:
        return ""
    if type(layer) is not getattr(keras.layers, kind):
        return f"its layer is not a keras.layers.{kind}, but another class of this name"
    if getattr(layer, "groups", 1) > 1:
        return f"its layer has groups={layer.groups}, so it multiplies by several matrices"
    if getattr(layer, "data_format", None) == "channels_first":
        return "its layer has data_format=channels_first, must be channels_last"
    if kind == "EinsumDense" and not _einsum_input_axes(layer.equation):
        return (
            f"its equation {layer.equation} is not a product of the last axes of the inputs with "
            "the first axes of the kernel"
        )
    return ""


def input_axes(layer: Any) -> int | None:
    """Returns how many of the kernel's first axes are inputs; None for all but the last.

    Args:
        layer: A built layer.

    Example:
        >>> import keras
        >>> input_axes(keras.layers.EinsumDense("abc,cde->abde", (None, 2, 4)))
        1
    """
    if type(layer).__name__ != "EinsumDense" or not_a_matrix(layer):
        return None
    return _einsum_input_axes(layer.equation)


def call(layer: Any, inputs: Any, matmul: Callable[[Any], Any]) -> Any:
    """Computes a layer with another product of its inputs and its kernel.

    Args:
        layer: A built layer whose class is in `MATRIX_LAYERS`, and for which `not_a_matrix` is
            empty.
        inputs: The inputs of the layer, `[batch, ...]`.
        matmul: A function `[rows, inputs] -> [rows, outputs]`, which multiplies by the kernel as
            the matrix `kernel.reshape(inputs, outputs)`.

    Returns:
        The outputs of the layer, with its bias and activation, as its own `call` returns them.

    Example:
        >>> import keras, numpy as np, tensorflow as tf
        >>> layer, x = keras.layers.Conv1D(4, 3), tf.ones((2, 8, 5))
        >>> expected = layer(x)
        >>> outputs = call(layer, x, lambda rows: rows @ tf.reshape(layer.kernel, [3 * 5, 4]))
        >>> outputs.shape, np.allclose(outputs, expected)
        (TensorShape([2, 6, 4]), True)
    """
    import tensorflow as tf

    x = _patches(layer, inputs) if hasattr(layer, "kernel_size") else inputs
    kernel_shape = tuple(layer.kernel.shape)
    axes = input_axes(layer) or len(kernel_shape) - 1
    rows = tf.reshape(tf.cast(x, layer.compute_dtype), [-1, math.prod(kernel_shape[:axes])])
    y = tf.cast(matmul(rows), layer.compute_dtype)
    y = tf.reshape(y, tf.concat([tf.shape(x)[:-axes], kernel_shape[axes:]], 0))
    y.set_shape([*x.shape[:-axes], *kernel_shape[axes:]])
    y = y if layer.bias is None else y + layer.bias
    return y if layer.activation is None else layer.activation(y)


def _einsum_input_axes(equation: str) -> int:
    """Returns how many axes an equation of EinsumDense sums over, such as 2 for `abcd,cde->abe`.

    Returns 0 if it is not a product of the last axes of the inputs with the first of the kernel.
    """
    inputs, kernel, outputs = equation.replace("->", ",").split(",")
    for axes in range(1, len(kernel)):
        summed, added = kernel[:axes], kernel[axes:]
        letters = (inputs + added).replace(".", "")
        if inputs.endswith(summed) and outputs == inputs[:-axes] + added:
            return axes if len(set(letters)) == len(letters) else 0
    return 0


def _patches(layer: Any, inputs: Any) -> Any:
    """Returns the windows that a convolution moves over its inputs.

    Each axis is gathered by itself: `tf.image.extract_patches` has two spatial axes only.

    Args:
        layer: A convolution, with its channels last.
        inputs: `[batch, spatial..., channels]`.

    Returns:
        `[batch, positions..., window..., channels]`.
    """
    import tensorflow as tf

    rank, paddings, windows = layer.rank, [[0, 0]], []
    settings = zip(layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    for axis, (length, stride, dilation) in enumerate(settings, start=1):
        size = inputs.shape[axis]
        size = tf.shape(inputs)[axis] if size is None else size
        span = (length - 1) * dilation + 1
        before, after = _padding(layer.padding, size, span, stride)
        positions = (size + before + after - span) // stride + 1
        paddings.append([before, after])
        windows.append(tf.range(positions)[:, None] * stride + tf.range(length) * dilation)
    x = inputs if layer.padding == "valid" else tf.pad(inputs, [*paddings, [0, 0]])
    for i, indices in enumerate(windows):
        x = tf.gather(x, indices, axis=2 * i + 1)
    axes = range(1, 2 * rank + 1)  # position and window of the first spatial axis, then the next
    return tf.transpose(x, [0, *axes[::2], *axes[1::2], 2 * rank + 1])


def _padding(padding: str, size: Any, span: int, stride: int) -> tuple[Any, Any]:
    """Returns how many zeros a convolution adds before and after a spatial axis.

    Args:
        padding: `valid`, `same` or `causal`.
        size: Length of the axis, an int or a scalar tensor.
        span: Length of the window with its dilation.
        stride: Distance of two positions of the window.
    """
    import tensorflow as tf

    if padding == "valid":
        return 0, 0
    if padding == "causal":
        return span - 1, 0
    last_start = (size - 1) // stride * stride
    total = last_start + span - size
    total = max(total, 0) if isinstance(total, int) else tf.maximum(total, 0)
    return total // 2, total - total // 2
