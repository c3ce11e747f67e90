"""Reads arrays from `.npz` and `.npy` files that may come from anyone.

Pickled objects are never loaded, because loading one can run any code. A small file can declare an
array that is larger than the memory, or unpack to one. So the header of each array is read first,
and its size is compared with the size of the data in the file. An array can be read in blocks.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from stat import S_ISREG
from typing import IO

import numpy as np

from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.plan import Array

MAX_ARRAY_BYTES = 2**31
"""Largest size in bytes of what is read at once: one array, or all of a `.npz` file."""
CHUNK_BYTES = 2**20
"""Number of bytes that are unpacked at once."""
RAW_BFLOAT16 = np.dtype("V2")
"""The dtype in which NumPy saves a bfloat16 array."""
COMPRESSION_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The compression methods that NumPy writes. Python can unpack both in small parts."""


def read_exactly(stream: IO[bytes], size: int) -> bytearray:
    """Returns the next `size` bytes of a stream.

    Raises:
        ValueError: The stream has fewer bytes.
    """
    data = bytearray()
    while len(data) < size:
        chunk = stream.read(min(CHUNK_BYTES, size - len(data)))
        if not chunk:
            raise ValueError("the file ends too early")
        data += chunk
    return data


def regions(shape: Sequence[int], entries: int) -> Iterator[tuple[slice, ...]]:
    """Divides an array into blocks that are contiguous in C order.

    Args:
        shape: Shape of the array.
        entries: Largest number of entries of a block, 1 or more. Any axis may be divided, not only
            the first.

    Yields:
        The index of each block, in C order: a slice for each axis. A scalar is one block. An array
        without entries has no block.

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
    for outer_index in np.ndindex(*shape[:axis]):
        outer = [slice(i, i + 1) for i in outer_index]
        for start in range(0, shape[axis], step):
            yield (*outer, slice(start, min(start + step, shape[axis])), *inner)


@dataclass(frozen=True)
class ArrayFile:
    """One array of a file. Only its header is read at first."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    """Whether the array is stored in Fortran order, else in C order."""
    path: str
    """Path of the file, for messages."""
    open_data: Callable[[], IO[bytes]]
    """Opens the file at the position where the data of the array begins."""

    @property
    def size(self) -> int:
        """Size of the data in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_bfloat16(self) -> bool:
        """Whether the array is bfloat16. It is then read as float32, which keeps all values."""
        return self.dtype == RAW_BFLOAT16

    def whole(self) -> Array:
        """Reads the whole array.

        Raises:
            Invalid: (key `path`) The file is damaged, or the array has more than
                `MAX_ARRAY_BYTES` bytes.
        """
        if self.size > MAX_ARRAY_BYTES:
            problem = f"an array of {self.size:,} bytes must be read as a whole"
            fortran = "; save it in C order, with numpy.ascontiguousarray" * self.fortran
            allowed = f"{problem}, and {MAX_ARRAY_BYTES:,} are allowed{fortran}"
            raise Invalid("path", self.path, allowed)
        with _readable(self.path), self.open_data() as stream:
            return self._array(read_exactly(stream, self.size), self.shape)

    def blocks(self, entries: int) -> Iterator[Array]:
        """Reads the array in blocks.

        An array in Fortran order is read as a whole first.

        Args:
            entries: Largest number of entries of a block.

        Yields:
            The blocks, in the order and shapes of `regions`.

        Raises:
            Invalid: (key `path`) The file is damaged, or an array in Fortran order has more than
                `MAX_ARRAY_BYTES` bytes.
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
        if self.is_bfloat16:  # its bits are the upper half of a float32
            array = (array.view("<u2").astype("<u4") << 16).view("<f4")
        return array


def _array_file(path: str, open_file: Callable[[], IO[bytes]], size: int) -> ArrayFile:
    """Returns the array of a `.npy` file of `size` bytes, which may be inside a `.npz` file."""
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
    """Turns any exception inside a `with` block into `Invalid` (key `path`)."""
    try:
        yield
    except Invalid:
        raise
    except Exception as error:  # zlib, zipfile and NumPy raise about ten kinds
        has_objects = "Object arrays" in str(error)
        kind = Path(path).suffix if Path(path).suffix in (".npz", ".npy") else ".npz"
        reason = "holds pickled objects" if has_objects else f"not a readable {kind} file"
        raise Invalid("path", path, f"{reason}; it must hold plain numeric arrays") from error


def file_size(path: str) -> int:
    """Returns the size of a file in bytes. Raises `Invalid` if there is no such file."""
    with suppress(OSError, ValueError):  # the path may have characters that are not allowed
        status = Path(path).stat()
        if S_ISREG(status.st_mode):
            return status.st_size
    raise Invalid("path", path, "no such file")


@contextmanager
def open_arrays(path: str, most: float = inf) -> Iterator[dict[str, ArrayFile]]:
    """Opens a `.npz` file. Its arrays can be read inside the `with` block.

    Args:
        path: Path of the file.
        most: Largest allowed size in bytes: of the file, plus of all arrays when unpacked.

    Yields:
        The arrays by name.

    Raises:
        Invalid: (key `path`) There is no such file, it is not a `.npz` file, it has pickled
            objects, or it is too large.
    """
    size = file_size(path)
    arrays: dict[str, ArrayFile] = {}
    with ExitStack() as stack:
        with _readable(path):
            if size > most:
                raise Invalid("path", path, f"more than {most} bytes")
            archive = zipfile.ZipFile(stack.enter_context(Path(path).open("rb")))
            if size + sum(member.file_size for member in archive.infolist()) > most:
                raise Invalid("path", path, f"more than {most} bytes, packed or unpacked")
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in arrays or member.compress_type not in COMPRESSION_METHODS:
                    raise ValueError("two arrays of one name, or packed in an unusual way")
                arrays[name] = _array_file(path, partial(archive.open, member), member.file_size)
        yield arrays


def open_array(path: str) -> ArrayFile:
    """Returns the array of a `.npy` file. Raises `Invalid` as `open_arrays` does."""
    size = file_size(path)
    with _readable(path):
        return _array_file(path, lambda: Path(path).open("rb"), size)


def read_arrays(path: str) -> dict[str, Array]:
    """Reads all arrays of a `.npz` file, by name.

    Raises:
        Invalid: (key `path`) There is no such file, it is not a `.npz` file, it has pickled
            objects, or it has more than `MAX_ARRAY_BYTES` bytes.
    """
    with open_arrays(path, MAX_ARRAY_BYTES) as arrays:
        return {name: array.whole() for name, array in arrays.items()}


def read_weights(path: str, names: Collection[str], content: str) -> dict[str, Array]:
    """Reads the arrays of the named weights from a `.npz` file, which may have others too.

    Args:
        path: The file.
        names: Names of the weights.
        content: What the arrays are, for the message, such as `masks`.

    Raises:
        Invalid: (key `path`) As for `read_arrays`, or the file has no array for a weight.
    """
    arrays = read_arrays(path)
    missing = ", ".join(name for name in names if name not in arrays)
    allowed = f"a file with {content} for {missing}; it has {', '.join(arrays)}"
    require(not missing, "path", path, allowed)
    return {name: arrays[name] for name in names}


def digest(path: str) -> str:
    """Returns the SHA-256 of a file's content, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
