"""What `sparse_tensor` does with a kernel if its format is one of this package."""

from __future__ import annotations

import math
from typing import Any

from masksweep.strategies.binding import Binding
from masksweep.strategies.core import places
from masksweep.strategies.kernels import block, compact, structure
from masksweep.strategies.plan import MATRIX_LAYERS, Array, Mask, MaskedWeight

MODULES: dict[str, Any] = {"compiled": structure, "block": block, "compact": compact}
"""The module of each format, with the functions `pack` and `flat_indices`."""


def multiply(format: str, x: Any, values: Any, packed: Any, outputs: int) -> Any:
    """Returns `x @ kernel` for a kernel in one of the formats.

    Args:
        format: A key of `MODULES`.
        x: Inputs, `[rows, inputs]`.
        values: The kept values, in the order of the format.
        packed: What `pack` of the format returned for the mask.
        outputs: Number of columns of the kernel.
    """
    # here, because the compiler of these is loaded only where it is needed
    if format == "compiled":
        from masksweep.strategies.kernels import sparse_product

        return sparse_product.multiply(x, values, packed, outputs)
    if format == "block":
        from masksweep.strategies.kernels import block_product

        return block_product.multiply(x, values, packed, outputs)
    return compact.multiply(x, values, packed, outputs)


def misfit(format: str, masked: MaskedWeight) -> str:
    """Returns which weights a format takes only, if it does not take this one, else empty."""
    mask = masked.with_outputs_last().mask
    if format == "block" and not block.has_blocks(mask):
        return "masks of whole blocks"
    if format == "compact" and not compact.is_compact(mask):
        return "masks of whole rows and columns"
    return ""


def binding(format: str) -> Binding:
    """Returns the functions over `v`, the kept values, and `m`, what `pack` returns for the mask.

    `v` has the shape of `flat_indices`, which are the places of its values in the flattened kernel.

    Args:
        format: A key of `MODULES`.
    """
    module = MODULES[format]

    def padded(mask: Mask, count: int) -> Array:
        return structure.pack(mask, places=count)

    def flat_indices(m: Any, shape: Any) -> Any:
        return module.flat_indices(m, math.prod(shape[:-1]), shape[-1])

    def gather(w: Any, m: Any, h: Any) -> Any:
        return places.gather(w, flat_indices(m, w.shape))

    def scatter(v: Any, m: Any, h: Any) -> Any:
        return places.scatter(v, flat_indices(m, h.shape), dense_zeros(h))

    return Binding(
        layout=module.pack,
        padded=padded if format == "compiled" else None,
        keep=lambda held, m: held,
        init=gather,
        substitute=scatter,
        matmul=lambda x, v, m, h: multiply(format, x, v, m, h.shape[-1]),
        matmul_layers=MATRIX_LAYERS,
        outputs_last=True,
        # the values of a compact kernel have two axes, so its held values are stored
        places=None if format == "compact" else flat_indices,
    )


def dense_zeros(h: Any) -> Any:
    """Returns the held values as a dense tensor; they are zeros if `h` is a `tf.TensorSpec`."""
    import tensorflow as tf

    return tf.zeros(h.shape, h.dtype) if isinstance(h, tf.TensorSpec) else h
