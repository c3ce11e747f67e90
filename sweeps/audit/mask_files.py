"""Masks as people save them: `.npz` by weight name, or one as `.npy` or a sparse matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from masksweep.strategies.base import Array, Invalid, require
from masksweep.strategies.npz import ArrayFile, open_array, open_arrays

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

    def blocks(self, rows: int) -> Iterator[Array]:
        """The mask in blocks of so many rows, in order."""


@dataclass(frozen=True)
class SparseMask:
    """A SciPy matrix. What it does not store, and what it stores as zero, is masked."""

    path: str
    format: str
    shape: tuple[int, ...]
    parts: Mapping[str, ArrayFile]

    def blocks(self, rows: int) -> Iterator[Array]:
        """The mask in blocks of so many rows, in order; no more of it is made dense at once.

        Raises:
            Invalid: (key `path`) It has entries outside of the matrix, or more than the matrix.
        """
        most = 2 * math.prod(self.shape) + sum(self.shape) + 1
        if any(math.prod(part.shape) > most for part in self.parts.values()):
            raise Invalid("path", self.path, "has more entries than a matrix of its shape")
        data, *places = [self.parts[name].whole() for name in PARTS[self.format]]
        try:
            matrix = self._matrix(data, places)
        except Exception as error:  # SciPy raises ValueError, IndexError, TypeError
            raise Invalid("path", self.path, "is no valid sparse matrix") from error
        for start in range(0, self.shape[0], rows):
            yield matrix[start : start + rows].toarray()

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
        Invalid: (key `path`) It is none of these, damaged, or holds objects.
    """
    if Path(path).suffix == ".npy":
        yield {UNNAMED: open_array(path)}
        return
    with open_arrays(path) as arrays:
        if "format" in arrays and "shape" in arrays and "data" in arrays:
            yield {UNNAMED: _sparse(path, arrays)}
            return
        require(bool(arrays), "path", path, "a file with masks by weight name; it has none")
        names = list(arrays)
        yield {UNNAMED: arrays["arr_0"]} if names == ["arr_0"] else dict(arrays)


def _sparse(path: str, files: Mapping[str, ArrayFile]) -> SparseMask:
    if files["format"].size > 16 or files["shape"].size > 16:
        raise Invalid("path", path, "must be a sparse matrix, of two dimensions")
    name = files["format"].whole().item()
    name = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    shape = tuple(int(n) for n in files["shape"].whole().ravel())
    missing = name not in PARTS or not set(PARTS[name]) <= set(files)
    if missing or len(shape) != 2 or min(shape) < 0:
        raise Invalid("path", path, f"must be a sparse matrix in {', '.join(PARTS)} format")
    return SparseMask(path, name, shape, {part: files[part] for part in PARTS[name]})
