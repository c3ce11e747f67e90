"""How often the layers of Keras multiply each entry of their kernels, from the shapes of a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from masksweep.strategies.core.raw_products import (
    Positions,
    Sizes,
    einsum_positions,
    einsum_sizes,
    product,
)

Rule = Callable[[Any, str, Sizes, Sizes], Positions]
"""(layer, name of the kernel, shape of the inputs, shape of the outputs) -> positions in a call."""


def rule_of(layer: Any) -> Rule | None:
    """Returns the rule of a layer of Keras.

    None if there is none, or if a subclass has a `call` or a `kernel` of its own.
    """
    if (name := getattr(type(layer), "counted_as", None)) is not None:  # `SparseDense`
        return _RULES[name]
    for kind in type(layer).__mro__:
        if kind.__module__.startswith("keras.") and kind.__name__ in _RULES:
            same = all(getattr(type(layer), name, None) is getattr(kind, name, None)
                       for name in ("call", "kernel"))  # fmt: skip
            return _RULES[kind.__name__] if same else None
    return None


def _rows(layer: Any, name: str, inputs: Sizes, outputs: Sizes) -> Positions:
    return product(inputs[:-1])


def _output_places(layer: Any, name: str, inputs: Sizes, outputs: Sizes) -> Positions:
    channels = 1 if layer.data_format == "channels_first" else len(outputs) - 1
    return product(size for axis, size in enumerate(outputs) if axis != channels)


def _input_places(layer: Any, name: str, inputs: Sizes, outputs: Sizes) -> Positions:
    return _output_places(layer, name, inputs, inputs)


def _einsum(layer: Any, name: str, inputs: Sizes, outputs: Sizes) -> Positions:
    shapes = [inputs, layer.kernel.shape]
    count = einsum_positions(layer.equation, shapes, operand=1)
    if not name.startswith("lora") or count is None:
        return count
    in_inputs, in_kernel = einsum_sizes(layer.equation, shapes)
    in_outputs = layer.equation.partition("->")[2]
    *_, last = in_kernel  # the factors are [all other labels, rank] and [rank, last]
    if last in in_inputs and last in in_outputs:
        return None
    if name == "lora_kernel_a":
        return count
    if last in in_inputs:  # the second factor is applied before the first
        return product(size for label, size in in_inputs.items() if label != last)
    between = {**in_inputs, **in_kernel}.items()
    return product(n for k, n in between if k != last and (k not in in_kernel or k in in_outputs))


def _look_up(layer: Any, name: str, inputs: Sizes, outputs: Sizes) -> Positions:
    return product(inputs) if name == "lora_embeddings_b" else 0  # applied to rows of the first


_RULES: dict[str, Rule] = {
    **dict.fromkeys(["Dense", "SimpleRNNCell", "LSTMCell", "GRUCell"], _rows),
    **dict.fromkeys(["Conv1D", "Conv2D", "Conv3D", "ConvLSTMCell"], _output_places),
    **dict.fromkeys(["DepthwiseConv1D", "DepthwiseConv2D"], _output_places),
    **dict.fromkeys(["SeparableConv1D", "SeparableConv2D"], _output_places),
    **dict.fromkeys(["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"], _input_places),
    "EinsumDense": _einsum,
    "Embedding": _look_up,
    # they multiply entry by entry, also by weights with several axes
    **dict.fromkeys(["LayerNormalization", "RMSNormalization", "PReLU"], lambda *_: 0),
}
"""How the layers of Keras are counted that compute with their weights, by the name of the class."""
