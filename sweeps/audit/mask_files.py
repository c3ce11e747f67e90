"""Opens files with masks: `.npz` by weight name, or one mask as `.npy` or SciPy matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from masksweep.strategies.base import Array, Invalid, require
from masksweep.strategies.core.npz import (
    MAX_ARRAY_BYTES,
    ArrayFile,
    open_array,
    open_arrays,
    regions,
)

MASK_FORMATS = "a .npz file of masks by weight name, or one mask: .npy, or .npz of a SciPy matrix"
SPARSE_ARRAYS = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
    "dia": ("data", "offsets"),
}
"""Names of the arrays that a file has for a sparse matrix, by the format of the matrix."""
UNNAMED_MASK = ""
"""Name of the only mask in a file that has no name for it."""


class StoredMask(Protocol):
    """A mask in a file, which is read in blocks."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def blocks(self, entries: int) -> Iterator[Array]:
        """Yields the mask in blocks of at most `entries` entries, in the order of `regions`."""


@dataclass(frozen=True)
class SparseMask:
    """A mask that is a SciPy matrix in a file. Entries that are 0 or not stored are masked."""

    path: str
    format: str
    """One of `SPARSE_ARRAYS`."""
    shape: tuple[int, ...]
    parts: Mapping[str, ArrayFile]
    """The arrays of the matrix by name, as in `SPARSE_ARRAYS`."""

    def blocks(self, entries: int) -> Iterator[Array]:
        """Yields the mask in dense blocks. Only one block is dense at a time.

        Args:
            entries: Largest number of entries of a block.

        Raises:
            Invalid: (key `path`) The matrix has entries outside its shape, more entries than its
                shape allows, or more bytes than `MAX_ARRAY_BYTES`.
        """
        if 8 * self.shape[0] > MAX_ARRAY_BYTES:  # SciPy's index takes 8 bytes per row
            raise Invalid("path", self.path, f"has more than {MAX_ARRAY_BYTES // 8:,} rows")
        limit = 2 * math.prod(self.shape) + sum(self.shape) + 1
        if any(math.prod(part.shape) > limit for part in self.parts.values()):
            raise Invalid("path", self.path, "has more entries than a matrix of its shape")
        data, *indices = [self.parts[name].whole() for name in SPARSE_ARRAYS[self.format]]
        try:
            matrix = self._matrix(data, indices)
        except Exception as error:  # SciPy raises ValueError, IndexError, TypeError
            raise Invalid("path", self.path, "is no valid sparse matrix") from error
        for region in regions(self.shape, entries):
            yield matrix[region].toarray()

    def _matrix(self, data: Array, indices: list[Array]) -> Any:
        import scipy.sparse

        matrix_class = getattr(scipy.sparse, f"{self.format}_matrix")
        if self.format == "coo":
            return matrix_class((data, indices), shape=self.shape).tocsr()
        matrix = matrix_class((data, *indices), shape=self.shape)
        if self.format != "dia":
            # without this check, SciPy may write outside of its arrays
            matrix.check_format(full_check=True)
        return matrix.tocsr()


@contextmanager
def open_masks(path: str) -> Iterator[Mapping[str, StoredMask]]:
    """Opens a file with masks. They can be read inside the `with` block.

    Args:
        path: Path of a `.npz` file of masks by weight name, of a `.npy` file, or of a `.npz` file
            with a sparse matrix or with one array that `numpy.savez` got without a name.

    Yields:
        The masks by weight name. A mask without a name has the name `UNNAMED_MASK`.

    Raises:
        Invalid: (key `path`) The file has another format, is damaged, or has pickled objects; (key
            `mask of NAME`) an array does not have a numeric dtype.
    """
    if Path(path).suffix == ".npy":
        yield {UNNAMED_MASK: _numbers("mask", open_array(path))}
        return
    with open_arrays(path) as arrays:
        if "format" in arrays and "shape" in arrays and "data" in arrays:
            yield {UNNAMED_MASK: _sparse(path, arrays)}
            return
        require(bool(arrays), "path", path, "a file with masks by weight name; it has none")
        if list(arrays) == ["arr_0"]:
            yield {UNNAMED_MASK: _numbers("mask", arrays["arr_0"])}
        else:
            yield {name: _numbers(f"mask of {name}", array) for name, array in arrays.items()}


def _numbers(key: str, array: ArrayFile) -> ArrayFile:
    """Returns the array. Raises `Invalid` if it is not numeric: other entries can be large."""
    is_small = array.dtype.kind in "buif" and array.dtype.itemsize <= 8
    require(is_small or array.is_bfloat16, key, f"dtype {array.dtype}", "0 and 1 only")
    return array


def _sparse(path: str, arrays: Mapping[str, ArrayFile]) -> SparseMask:
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
        part: _numbers(f"{part} of the sparse mask", arrays[part]) for part in SPARSE_ARRAYS[name]
    }
    return SparseMask(path, name, shape, parts)
