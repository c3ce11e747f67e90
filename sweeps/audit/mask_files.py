"""Masks as people save them: `.npz` by weight name, or one as `.npy` or a sparse matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from masksweep.strategies.base import Array, Invalid, require
from masksweep.strategies.core.npz import LARGE, ArrayFile, open_array, open_arrays, regions

FORMATS = "a .npz file of masks by weight name, or one mask: .npy, or .npz of a SciPy matrix"
PARTS = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
    "dia": ("data", "offsets"),
}
"""The arrays of a sparse matrix of each format in the file."""
UNNAMED = ""
"""The name of a mask whose file holds no other and no name."""


class StoredMask(Protocol):
    """A mask that is not read yet."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def blocks(self, entries: int) -> Iterator[Array]:
        """The mask in blocks of at most so many entries, as `regions` has them."""


@dataclass(frozen=True)
class SparseMask:
    """A SciPy matrix. What it does not store, and what it stores as zero, is masked."""

    path: str
    format: str
    shape: tuple[int, ...]
    parts: Mapping[str, ArrayFile]

    def blocks(self, entries: int) -> Iterator[Array]:
        """The mask in blocks of at most so many entries; no more of it is made dense at once.

        Raises:
            Invalid: (key `path`) It has entries outside of the matrix, more than the matrix, or
                more than may be read as a whole.
        """
        if 8 * self.shape[0] > LARGE:  # SciPy's index has 8 bytes for each row
            raise Invalid("path", self.path, f"has more than {LARGE // 8:,} rows")
        most = 2 * math.prod(self.shape) + sum(self.shape) + 1
        if any(math.prod(part.shape) > most for part in self.parts.values()):
            raise Invalid("path", self.path, "has more entries than a matrix of its shape")
        data, *places = [self.parts[name].whole() for name in PARTS[self.format]]
        try:
            matrix = self._matrix(data, places)
        except Exception as error:  # SciPy raises ValueError, IndexError, TypeError
            raise Invalid("path", self.path, "is no valid sparse matrix") from error
        for region in regions(self.shape, entries):
            yield matrix[region].toarray()

    def _matrix(self, data: Array, places: list[Array]) -> Any:
        import scipy.sparse

        make = getattr(scipy.sparse, f"{self.format}_matrix")
        if self.format == "coo":
            return make((data, places), shape=self.shape).tocsr()
        matrix = make((data, *places), shape=self.shape)
        if self.format != "dia":
            matrix.check_format(full_check=True)  # else SciPy writes wherever an index points
        return matrix.tocsr()


@contextmanager
def open_masks(path: str) -> Iterator[Mapping[str, StoredMask]]:
    """The masks of a file by weight name, to be read inside of the `with` block.

    The only mask of a `.npy` file, of a sparse matrix, or of a `.npz` file that `numpy.savez` was
    given one array for, has the name `UNNAMED`.

    Raises:
        Invalid: (key `path`) It is none of these, damaged, or holds objects; (key `mask of NAME`)
            it is an array of something else than numbers.
    """
    if Path(path).suffix == ".npy":
        yield {UNNAMED: _numbers("mask", open_array(path))}
        return
    with open_arrays(path) as arrays:
        if "format" in arrays and "shape" in arrays and "data" in arrays:
            yield {UNNAMED: _sparse(path, arrays)}
            return
        require(bool(arrays), "path", path, "a file with masks by weight name; it has none")
        if list(arrays) == ["arr_0"]:
            yield {UNNAMED: _numbers("mask", arrays["arr_0"])}
        else:
            yield {name: _numbers(f"mask of {name}", array) for name, array in arrays.items()}


def _numbers(key: str, array: ArrayFile) -> ArrayFile:
    """The array. Raises `Invalid` unless it has numbers: other entries may be of any size."""
    small = array.dtype.kind in "buif" and array.dtype.itemsize <= 8
    require(small or array.is_bfloat16, key, f"dtype {array.dtype}", "0 and 1 only")
    return array


def _sparse(path: str, files: Mapping[str, ArrayFile]) -> SparseMask:
    text, sizes = files["format"], files["shape"]
    a_name = text.shape == () and text.dtype.kind in "SU" and text.size <= 64
    two_sizes = sizes.shape == (2,) and sizes.dtype.kind in "iu"
    if not a_name or not two_sizes:
        raise Invalid("path", path, "must be a sparse matrix, of two dimensions")
    name = text.whole().item()
    name = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    shape = tuple(int(n) for n in sizes.whole())
    missing = name not in PARTS or not set(PARTS[name]) <= set(files)
    if missing or min(shape) < 0:
        raise Invalid("path", path, f"must be a sparse matrix in {', '.join(PARTS)} format")
    parts = {part: _numbers(f"{part} of the sparse mask", files[part]) for part in PARTS[name]}
    return SparseMask(path, name, shape, parts)
