"""Opens files with masks: `.npz` by weight name, or one mask as `.npy` or SciPy matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from masksweep.strategies.core.npz import MAX_ARRAY_BYTES, open_array, open_arrays, regions
from masksweep.strategies.core.sparse_file import (
    SparseFile,
    is_sparse,
    require_numbers,
    sparse_file,
)
from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.plan import Array

MASK_FORMATS = "a .npz file of masks by weight name, or one mask: .npy, or .npz of a SciPy matrix"
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

    file: SparseFile

    @property
    def shape(self) -> tuple[int, ...]:
        return self.file.shape

    def blocks(self, entries: int) -> Iterator[Array]:
        """Yields the mask in dense blocks. Only one block is dense at a time.

        Args:
            entries: Largest number of entries of a block.

        Raises:
            Invalid: (key `path`) The matrix has entries outside its shape, more entries than its
                shape allows, or more bytes than `MAX_ARRAY_BYTES`.
        """
        path = self.file.path
        if 8 * self.shape[0] > MAX_ARRAY_BYTES:  # SciPy's index takes 8 bytes per row
            raise Invalid("path", path, f"has more than {MAX_ARRAY_BYTES // 8:,} rows")
        data, *indices = self.file.arrays()
        try:
            matrix = self._matrix(data, indices)
        except Exception as error:  # SciPy raises ValueError, IndexError, TypeError
            raise Invalid("path", path, "is no valid sparse matrix") from error
        for region in regions(self.shape, entries):
            yield matrix[region].toarray()

    def _matrix(self, data: Array, indices: list[Array]) -> Any:
        import scipy.sparse

        matrix_class = getattr(scipy.sparse, f"{self.file.format}_matrix")
        if self.file.format == "coo":
            return matrix_class((data, indices), shape=self.shape).tocsr()
        matrix = matrix_class((data, *indices), shape=self.shape)
        if self.file.format != "dia":
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
        yield {UNNAMED_MASK: require_numbers("mask", open_array(path))}
        return
    with open_arrays(path) as arrays:
        if is_sparse(arrays):
            yield {UNNAMED_MASK: SparseMask(sparse_file(path, arrays))}
            return
        require(bool(arrays), "path", path, "a file with masks by weight name; it has none")
        if list(arrays) == ["arr_0"]:
            yield {UNNAMED_MASK: require_numbers("mask", arrays["arr_0"])}
        else:
            yield {
                name: require_numbers(f"mask of {name}", array) for name, array in arrays.items()
            }
