"""Arrays from a stranger's `.npz` or `.npy` file: never a pickle, never more than is stored.

A small file can declare, or unpack to, far more than a machine has memory. So the header of each
array is read first, and its size is compared with what the file holds; an array can be read in
blocks.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from stat import S_ISREG
from typing import IO

import numpy as np

from masksweep.strategies.base import Array, Invalid

LARGE = 2**31
"""Bytes of a `.npz` file, packed or unpacked, or of one array, that is read as a whole."""
CHUNK = 2**20
"""Bytes that are unpacked at once."""
RAW_BFLOAT16 = np.dtype("V2")
"""What NumPy saves a bfloat16 as."""
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What NumPy writes, and what Python unpacks in small parts."""


def read_exactly(stream: IO[bytes], size: int) -> bytearray:
    """The next `size` bytes. Raises `ValueError` if there are fewer."""
    data = bytearray()
    while len(data) < size:
        chunk = stream.read(min(CHUNK, size - len(data)))
        if not chunk:
            raise ValueError("the file ends too early")
        data += chunk
    return data


def regions(shape: Sequence[int], entries: int) -> Iterator[tuple[slice, ...]]:
    """The blocks of an array, in the order in which their entries are stored (C order).

    Args:
        shape: Shape of the array.
        entries: Most entries of a block, 1 or more. Any axis is cut for it, not only the first.

    Yields:
        The index of each block: a slice for each axis. A scalar is one block, an array without
        entries has none.

    Example:
        >>> [[(s.start, s.stop) for s in block] for block in regions((2, 3), 2)]
        [[(0, 1), (0, 2)], [(0, 1), (2, 3)], [(1, 2), (0, 2)], [(1, 2), (2, 3)]]
    """
    if not shape:
        yield ()
    if not shape or 0 in shape:
        return
    axis = next(i for i in range(len(shape)) if math.prod(shape[i + 1 :]) <= entries)
    step = entries // math.prod(shape[axis + 1 :])
    inner = [slice(0, length) for length in shape[axis + 1 :]]
    for place in np.ndindex(*shape[:axis]):
        outer = [slice(i, i + 1) for i in place]
        for start in range(0, shape[axis], step):
            yield (*outer, slice(start, min(start + step, shape[axis])), *inner)


@dataclass(frozen=True)
class ArrayFile:
    """One array of a file, of which only the header was read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    path: str
    open_data: Callable[[], IO[bytes]]
    """Opens the file, and goes to where the data of the array begins."""

    @property
    def size(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_bfloat16(self) -> bool:
        """Whether it was a bfloat16; it is read as float32, which has all of its values."""
        return self.dtype == RAW_BFLOAT16

    def whole(self) -> Array:
        """The array.

        Raises:
            Invalid: (key `path`) The file is damaged, or the array has more than `LARGE` bytes.
        """
        if self.size > LARGE:
            allowed = f"an array of {self.size:,} bytes must be read as a whole, and {LARGE:,} are"
            fortran = "; save it in C order, with numpy.ascontiguousarray" * self.fortran
            raise Invalid("path", self.path, f"{allowed} allowed{fortran}")
        with _readable(self.path), self.open_data() as stream:
            return self._array(read_exactly(stream, self.size), self.shape)

    def blocks(self, entries: int) -> Iterator[Array]:
        """The array in blocks of at most so many entries, as `regions` has them.

        Raises:
            Invalid: (key `path`) The file is damaged, or the array is in Fortran order, so that it
                is read as a whole, and too large for that.
        """
        if self.fortran:
            array = self.whole()
            yield from (array[region] for region in regions(self.shape, entries))
            return
        with _readable(self.path), self.open_data() as stream:
            for region in regions(self.shape, entries):
                shape = tuple(part.stop - part.start for part in region)
                size = math.prod(shape) * self.dtype.itemsize
                yield self._array(read_exactly(stream, size), shape)

    def _array(self, data: bytearray, shape: tuple[int, ...]) -> Array:
        array: Array = np.frombuffer(data, self.dtype)
        array = array.reshape(shape, order="F" if self.fortran else "C")
        if self.is_bfloat16:  # the upper half of a float32
            array = (array.view("<u2").astype("<u4") << 16).view("<f4")
        return array


def _array_file(path: str, open_file: Callable[[], IO[bytes]], size: int) -> ArrayFile:
    """The array of a `.npy` file of so many bytes, which may be a part of the file at `path`."""
    with open_file() as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError("a header for named fields")
        start = stream.tell()
    if dtype.hasobject:
        raise ValueError("Object arrays")

    def open_data() -> IO[bytes]:
        stream = open_file()
        read_exactly(stream, start)
        return stream

    array = ArrayFile(shape, dtype, fortran, path, open_data)
    if min(shape, default=0) < 0 or array.size != size - start:
        raise ValueError("its shape is not that of its data")
    return array


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Whatever is wrong with the file is raised as `Invalid` (key `path`)."""
    try:
        yield
    except Invalid:
        raise
    except Exception as error:  # zlib, zipfile and NumPy raise some ten kinds
        pickled = "Object arrays" in str(error)
        kind = Path(path).suffix if Path(path).suffix in (".npz", ".npy") else ".npz"
        reason = "holds pickled objects" if pickled else f"not a readable {kind} file"
        raise Invalid("path", path, f"{reason}; it must hold plain numeric arrays") from error


def _size(path: str) -> int:
    """The size of a file in bytes. Raises `Invalid` if there is no such file."""
    with suppress(OSError, ValueError):  # its name may be none that a file can have
        status = Path(path).stat()
        if S_ISREG(status.st_mode):
            return status.st_size
    raise Invalid("path", path, "no such file")


@contextmanager
def open_arrays(path: str, most: float = inf) -> Iterator[dict[str, ArrayFile]]:
    """The arrays of a `.npz` file by name, to be read while it is open.

    Raises `Invalid` (key `path`) if there is no such file, it is no `.npz`, it holds objects, or it
    has more than `most` bytes, packed and unpacked.
    """
    size = _size(path)
    arrays: dict[str, ArrayFile] = {}
    with ExitStack() as stack:
        with _readable(path):
            if size > most:
                raise Invalid("path", path, f"more than {most} bytes")
            packed = zipfile.ZipFile(stack.enter_context(Path(path).open("rb")))
            if size + sum(part.file_size for part in packed.infolist()) > most:
                raise Invalid("path", path, f"more than {most} bytes, packed or unpacked")
            for part in packed.infolist():
                name = part.filename.removesuffix(".npy")
                if name in arrays or part.compress_type not in PACKINGS:
                    raise ValueError("two arrays of one name, or packed in an unusual way")
                arrays[name] = _array_file(path, partial(packed.open, part), part.file_size)
        yield arrays


def open_array(path: str) -> ArrayFile:
    """The array of a `.npy` file. Raises `Invalid` as `open_arrays` does."""
    size = _size(path)
    with _readable(path):
        return _array_file(path, lambda: Path(path).open("rb"), size)


def read_arrays(path: str) -> dict[str, Array]:
    """The arrays of a `.npz` file by name.

    Raises `Invalid` (key `path`) if there is no such file, it is no `.npz`, larger than `LARGE`, or
    it holds objects.
    """
    with open_arrays(path, LARGE) as arrays:
        return {name: array.whole() for name, array in arrays.items()}


def digest(path: str) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
