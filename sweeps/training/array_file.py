"""Arrays of one training as the content of a `.npz` file, and back. Loads no TensorFlow."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from masksweep.strategies.core.npz import RAW_BFLOAT16
from masksweep.strategies.plan import Array


def to_bytes(arrays: Mapping[str, Array]) -> bytes:
    """Returns arrays by name as the content of a `.npz` file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def from_bytes(content: bytes) -> dict[str, Array]:
    """Returns the arrays that were given to `to_bytes`, with their dtypes.

    NumPy stores bfloat16, which it does not know, as two raw bytes.

    Raises:
        Exception: Any exception of `numpy.load`, if the content is damaged.
    """
    import ml_dtypes

    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays: dict[str, Array] = {name: file[name] for name in file.files}
    return {
        name: array.view(ml_dtypes.bfloat16) if array.dtype == RAW_BFLOAT16 else array
        for name, array in arrays.items()
    }
