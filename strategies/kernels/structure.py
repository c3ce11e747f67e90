"""Where the entries of a sparse kernel are, for the products forward and backward."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from masksweep.strategies.plan import Array, Mask

MIN_BAND = 64
"""Number of units in the smallest band. Its rows, of a batch of 128, are 32 KiB, as large as the
first cache of a processor."""
ENTRIES_IN_BAND = 12
"""Number of entries that a unit has in a band on average, at least. With fewer, most of the time is
that of going from one unit to the next."""


PART_ENTRIES = 2**18
"""Number of entries of a mask whose indices are computed at once."""
NO_ENTRIES = np.empty((2, 0), np.int32)


class Structure(NamedTuple):
    """The places of the kept entries of a kernel `[inputs, outputs]`, by output and by input.

    The inputs are divided into bands. The values of the kernel are stored by band of inputs, by
    output within a band, and by input within an output. With one band this is the CSR format of the
    transposed kernel. With more, the rows of the inputs of a band stay in the cache while the
    entries of all outputs are read. The other three arrays are the same entries by band of outputs,
    and by input, so that the gradient of the inputs, too, reads one row after the other.
    """

    output_starts: Array
    """`[bands * outputs + 1]`: output `o` has in band `b` the entries from
    `output_starts[b * outputs + o]` to the next start."""
    inputs: Array
    """`[kept]`: the input of each entry, by output."""
    input_starts: Array
    """`[bands * inputs + 1]`: the same as `output_starts`, for the entries by input."""
    outputs: Array
    """`[kept]`: the output of each entry, by input."""
    positions: Array
    """`[kept]`: for each entry by input, its position among the entries by output.

    If there are places for more entries, the last of `inputs`, `outputs` and `positions` are of
    masked entries, and no start leads to them."""


def pack(mask: Mask, band: int | None = None, places: int = 0) -> Array:
    """Returns the structure of a mask as one array, whose length depends on counts alone.

    So one compiled training program serves every mask with as many kept entries.

    Args:
        mask: The mask of a kernel, `[..., outputs]`. All axes but the last are inputs.
        band: Number of units in a band. By default it depends on the density.
        places: Number of entries for which there is a place. Those that are missing are masked
            entries, stored after the kept ones. The products ignore them. The size of a band
            follows from this number.

    Returns:
        The number of units in a band and the five arrays of `Structure`, one after the other,
        int32. With one band of inputs and one of outputs, `[inputs + outputs + 3 + 3 * kept]`.

    Example:
        >>> mask = np.array([[True, False], [True, True]])
        >>> unpack(pack(mask), inputs=2, outputs=2).inputs.tolist()
        [0, 1, 1]
    """
    matrix = mask.reshape(-1, mask.shape[-1])
    inputs, outputs = _entries_by_output(matrix)
    masked = np.flatnonzero(~matrix)[: max(0, places - len(inputs))] if places else inputs[:0]
    masked_entries = np.stack(np.divmod(masked, max(1, matrix.shape[1])))
    return pack_entries(inputs, outputs, matrix.shape, band, masked_entries)


def _entries_by_output(matrix: Mask) -> tuple[Array, Array]:
    """Returns the input and the output of each kept entry, `[kept]` int32, by output.

    Some columns at a time, because the indices of NumPy take 8 bytes, and the structure 4.
    """
    columns = max(1, PART_ENTRIES // max(1, len(matrix)))
    parts = [NO_ENTRIES]
    for start in range(0, matrix.shape[1], columns):
        outputs, inputs = np.nonzero(matrix[:, start : start + columns].T)
        parts.append(np.stack([inputs, outputs + start]).astype(np.int32))
    inputs, outputs = np.concatenate(parts, axis=1)
    return inputs, outputs


def pack_entries(
    inputs: Array,
    outputs: Array,
    shape: tuple[int, int],
    band: int | None = None,
    masked: Array = NO_ENTRIES,
) -> Array:
    """Returns the result of `pack` from the kept entries.

    Args:
        inputs: The input of each entry, by output, and within an output in order, `[kept]` int32.
        outputs: The output of each entry, `[kept]` int32.
        shape: Numbers of inputs and outputs of the kernel.
        band: As for `pack`.
        masked: The input and the output of each masked entry that has a place, `[2, masked]`.
    """
    kept, places = len(inputs), len(inputs) + masked.shape[1]
    band = _band(shape, places) if band is None else band
    packed = np.empty(_length(shape, places, band), np.int32)
    packed[0] = band
    structure = unpack(packed, *shape)
    bands, units = _bands(shape, band)
    by_band, structure.output_starts[:] = _sorted(inputs // band * units + outputs, bands * units)
    outputs, inputs = outputs[by_band], inputs[by_band]
    structure.inputs[:] = np.concatenate([inputs, masked[0]])
    bands, units = _bands(shape[::-1], band)
    by_input, structure.input_starts[:] = _sorted(outputs // band * units + inputs, bands * units)
    structure.outputs[:] = np.concatenate([outputs[by_input], masked[1]])
    structure.positions[:kept], structure.positions[kept:] = by_input, range(kept, places)
    return packed


def packed_length(shape: tuple[int, int], kept: int) -> int:
    """Returns the length of the result of `pack` for a kernel with so many kept entries."""
    return _length(shape, kept, _band(shape, kept))


def _length(shape: tuple[int, int], places: int, band: int) -> int:
    starts = (math.prod(_bands(axes, band)) + 1 for axes in (shape, shape[::-1]))
    return 1 + sum(starts) + 3 * places


def _band(shape: tuple[int, int], kept: int) -> int:
    """Returns how many units a band has by default."""
    density = max(1, kept) / max(1, math.prod(shape))
    return min(max(shape), max(MIN_BAND, round(ENTRIES_IN_BAND / density)))


def _sorted(keys: Array, count: int) -> tuple[Array, Array]:
    """Sorts entries by a key in `range(count)`; entries with the same key stay in their order.

    SciPy's change of format from CSR to CSC counts the keys. It takes less time and memory than a
    sort of NumPy.

    Returns:
        The old position of each entry, `[entries]`, and where the entries of each key start,
        `[count + 1]`.
    """
    from scipy.sparse import csr_array

    entries = len(keys)
    one_in_each_row = np.ones(entries, bool), keys, np.arange(entries + 1, dtype=np.int32)
    by_key = csr_array(one_in_each_row, shape=(entries, count)).tocsc()
    return by_key.indices, by_key.indptr


def _bands(shape: tuple[int, ...], band: int) -> tuple[int, int]:
    """Returns how many bands the first axis has, and the length of the second axis."""
    return max(1, -(-shape[0] // band)), shape[1]


def unpack(packed: Array, inputs: int, outputs: int) -> Structure:
    """Returns the arrays of a structure, as views of the array that `pack` returned.

    Args:
        packed: The result of `pack`.
        inputs: Number of rows of the kernel.
        outputs: Number of columns of the kernel.
    """
    band = int(packed[0])
    by_output = math.prod(_bands((inputs, outputs), band)) + 1
    by_input = math.prod(_bands((outputs, inputs), band)) + 1
    places = (len(packed) - 1 - by_output - by_input) // 3
    ends = np.cumsum([1, by_output, places, by_input, places])
    return Structure(*np.split(packed, ends)[1:])


def flat_indices(packed: Any, inputs: int, outputs: int) -> Any:
    """Returns the indices of the kept entries in the flattened kernel, in the order of the values.

    Args:
        packed: The structure of the kernel, as `pack` returns it.
        inputs: Number of rows of the kernel.
        outputs: Number of columns of the kernel.

    Returns:
        `[kept]`, int64. If there are places for more entries, `-1 - index` of a masked entry for
        each of them.
    """
    import tensorflow as tf

    band = packed[0]
    by_output = tf.maximum(1, -(-inputs // band)) * outputs + 1
    by_input = tf.maximum(1, -(-outputs // band)) * inputs + 1
    places = (packed.shape[0] - 1 - by_output - by_input) // 3
    # slices, not tf.split, which would copy all five arrays
    starts, rows = packed[1 : 1 + by_output], packed[1 + by_output : 1 + by_output + places]
    columns = packed[packed.shape[0] - 2 * places : packed.shape[0] - places]
    # the unit of an entry is the last one that starts at it or before; faster than tf.repeat
    order = tf.range(places, dtype=packed.dtype)
    is_kept = order < starts[-1]
    units = tf.searchsorted(starts, order, side="right") - 1
    units = tf.where(is_kept, units % outputs, columns)
    flat = tf.cast(rows, tf.int64) * outputs + tf.cast(units, tf.int64)
    return tf.where(is_kept, flat, -1 - flat)
