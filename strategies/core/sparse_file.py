"""Reads sparse matrices from `.npz` files, as `scipy.sparse.save_npz` writes them, with NumPy.

The files may come from anyone; see `npz`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from masksweep.strategies.core.npz import MAX_ARRAY_BYTES, ArrayFile, open_arrays
from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.plan import Array

SPARSE_ARRAYS = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
    "dia": ("data", "offsets"),
}
"""Names of the arrays that a file has for a sparse matrix, by the format of the matrix."""
FORMATS_OF_ENTRIES = ("csr", "csc", "coo")
"""The formats that store each entry by itself."""


@dataclass(frozen=True)
class SparseFile:
    """A sparse matrix in a file. Only the headers of its arrays are read at first."""

    path: str
    format: str
    """One of `SPARSE_ARRAYS`."""
    shape: tuple[int, ...]
    parts: Mapping[str, ArrayFile]
    """The arrays of the matrix by name, as in `SPARSE_ARRAYS`."""

    def arrays(self) -> list[Array]:
        """Reads the arrays of the matrix, in the order of `SPARSE_ARRAYS`.

        Raises:
            Invalid: (key `path`) The file is damaged, or has more entries than its shape allows, or
                an array has more than `MAX_ARRAY_BYTES` bytes.
        """
        limit = 2 * math.prod(self.shape) + sum(self.shape) + 1
        if any(math.prod(part.shape) > limit for part in self.parts.values()):
            raise Invalid("path", self.path, "has more entries than a matrix of its shape")
        return [self.parts[name].whole() for name in SPARSE_ARRAYS[self.format]]

    def entries(self) -> tuple[Array, Array, Array]:
        """Reads the stored entries. An entry may be stored twice; its value is then their sum.

        Returns:
            (rows, columns, values), each `[entries]`.

        Raises:
            Invalid: (key `path`) As for `arrays`, or the matrix is not in one of
                `FORMATS_OF_ENTRIES`, or has entries outside its shape.
        """
        allowed = f"a sparse matrix in {', '.join(FORMATS_OF_ENTRIES)} format"
        require(self.format in FORMATS_OF_ENTRIES, "path", self.path, allowed)
        arrays = self.arrays()
        valid = all(a.ndim == 1 for a in arrays) and all(a.dtype.kind in "iu" for a in arrays[1:])
        entries = self._entries(arrays) if valid else None
        if entries is None:
            raise Invalid("path", self.path, "is no valid sparse matrix")
        return entries

    def _entries(self, arrays: list[Array]) -> tuple[Array, Array, Array] | None:
        """Returns the entries, or None if the arrays do not fit each other or the shape."""
        data, *others = arrays
        first, last = (array.astype(np.int64) for array in others)
        if self.format == "coo":
            rows, columns = first, last
        else:
            lines = self.shape[self.format == "csc"]
            counts = np.diff(last)
            # the entries are counted before `repeat`, which would make as many as the file says
            if len(last) != lines + 1 or last[0] != 0 or last[-1] > min(len(first), len(data)):
                return None
            if (counts < 0).any():
                return None
            rows, columns, data = (
                np.repeat(np.arange(lines), counts),
                first[: last[-1]],
                data[: last[-1]],
            )
            if self.format == "csc":
                rows, columns = columns, rows
        if not len(rows) == len(columns) == len(data):
            return None
        for indices, length in ((rows, self.shape[0]), (columns, self.shape[1])):
            if len(indices) and (indices.min() < 0 or indices.max() >= length):
                return None
        return rows, columns, data


def is_sparse(arrays: Mapping[str, ArrayFile]) -> bool:
    """Whether the arrays of a `.npz` file are those of a sparse matrix."""
    return {"format", "shape", "data"} <= set(arrays)


def sparse_file(path: str, arrays: Mapping[str, ArrayFile]) -> SparseFile:
    """Returns the sparse matrix of a `.npz` file that is open.

    Args:
        path: Path of the file, for messages.
        arrays: The arrays of the file.

    Raises:
        Invalid: (key `path`) It is not a sparse matrix of two dimensions in one of the formats of
            `SPARSE_ARRAYS`; (key `PART of the sparse mask`) an array does not have a numeric dtype.
    """
    if not is_sparse(arrays):
        raise Invalid("path", path, f"must be a sparse matrix; it has {', '.join(arrays)}")
    format_array, shape_array = arrays["format"], arrays["shape"]
    is_name = (
        format_array.shape == () and format_array.dtype.kind in "SU" and format_array.size <= 64
    )
    is_shape = shape_array.shape == (2,) and shape_array.dtype.kind in "iu"
    if not is_name or not is_shape:
        raise Invalid("path", path, "must be a sparse matrix, of two dimensions")
    name = format_array.whole().item()
    name = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    shape = tuple(int(n) for n in shape_array.whole())
    invalid = name not in SPARSE_ARRAYS or not set(SPARSE_ARRAYS[name]) <= set(arrays)
    if invalid or min(shape) < 0:
        raise Invalid("path", path, f"must be a sparse matrix in {', '.join(SPARSE_ARRAYS)} format")
    parts = {
        part: require_numbers(f"{part} of the sparse mask", arrays[part])
        for part in SPARSE_ARRAYS[name]
    }
    return SparseFile(path, name, shape, parts)


def read_entries(path: str) -> tuple[tuple[int, ...], Array, Array, Array]:
    """Reads the entries of a sparse matrix from a `.npz` file.

    Args:
        path: Path of the file, which is closed again.

    Returns:
        (shape, rows, columns, values), as `SparseFile.entries` returns them.

    Raises:
        Invalid: As for `sparse_file` and `SparseFile.entries`, or (key `path`) there is no such
            file, or it has more than `MAX_ARRAY_BYTES` bytes.
    """
    with open_arrays(path, MAX_ARRAY_BYTES) as arrays:
        file = sparse_file(path, arrays)
        return (file.shape, *file.entries())


def require_numbers(key: str, array: ArrayFile) -> ArrayFile:
    """Returns the array. Raises `Invalid` if it is not numeric: other entries can be large."""
    is_small = array.dtype.kind in "buif" and array.dtype.itemsize <= 8
    require(is_small or array.is_bfloat16, key, f"dtype {array.dtype}", "0 and 1 only")
    return array
