"""Images in a file on the disk, of which only the rows that are asked for are in memory.

Pictures are decoded once, to a file of bytes in the user's cache folder. Its name follows from the
content of the pictures, so all trials and later sweeps share it. An epoch then only reads rows of
that file, which takes a small part of the time to decode the pictures.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import uuid
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.locks import lock
from masksweep.sweeps.components.datasets import picture
from masksweep.sweeps.components.datasets.picture import ColorMode

BYTE_RANGE = np.float32(255)
"""The byte that stands for 1."""
RELEASE_BYTES = 2**24
"""Number of bytes that are read before the pages of the file are released."""
TASK_PICTURES = 256
"""Number of pictures that a thread decodes at once."""
VERSION = 1
"""Version of the file's content; part of its name."""


class StoredImages:
    """Images in a file of bytes, `[samples, height, width, channels]`, as numbers in [0, 1].

    An index, a slice or an array of row numbers, reads rows as float32.

    Args:
        file: The file, with the images one after the other.
        shape: The shape of one image.
        rows: Numbers of the images in the file, in the order of the samples.
    """

    def __init__(self, file: Path, shape: tuple[int, ...], rows: NDArray[np.int64]) -> None:
        self._file, self._rows = file, rows
        self.shape = (len(rows), *shape)
        with file.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self._images = np.frombuffer(self._map, np.uint8).reshape(-1, *shape)
        self._unreleased = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        inputs: NDArray[np.float32] = self.bytes(index).astype(np.float32)
        inputs /= BYTE_RANGE
        return inputs

    def bytes(self, index: Any) -> NDArray[np.uint8]:
        """Returns rows as they are in the file, which are to be divided by `BYTE_RANGE`."""
        images: NDArray[np.uint8] = self._images[self._rows[index]]
        self._unreleased += images.nbytes
        if self._unreleased > RELEASE_BYTES:
            # otherwise the whole file would soon count as memory of the process
            self._map.madvise(mmap.MADV_DONTNEED)
            self._unreleased = 0
        return images

    def subset(self, index: Any) -> StoredImages:
        """Returns some of the images, without reading them."""
        return StoredImages(self._file, self.shape[1:], self._rows[index])

    @property
    def sha256(self) -> str:
        """SHA-256 that identifies the images. The file's name follows from their content."""
        return hashlib.sha256(self._file.name.encode() + self._rows.tobytes()).hexdigest()


@dataclass(frozen=True)
class Pictures:
    """Pictures that are to be decoded in one way."""

    folder: str
    files: Sequence[str]
    """Paths of the pictures, relative to the folder."""
    content: str
    """SHA-256 of their content."""
    color_mode: ColorMode
    image_size: tuple[int, int] | None
    """Height and width of the images; None for those of the pictures, which must all be equal."""

    def decode(self) -> tuple[Path, tuple[int, ...]]:
        """Decodes the pictures to a file of bytes, unless there is one already.

        Returns:
            The file, with the images in the order of `files`, and the shape of one image.

        Raises:
            Invalid: A picture cannot be read or has another size than the others, or the file
                cannot be written.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on odd pictures that it can read
            return self._decode()

    def _decode(self) -> tuple[Path, tuple[int, ...]]:
        import PIL

        height, width = self.image_size or picture.size_of(self.folder, self.files[0])
        shape = height, width, 3 if self.color_mode == "rgb" else 1
        parts = self.content, self.files, shape, self.color_mode, PIL.__version__, VERSION
        name = f"images-{hashlib.sha256(repr(parts).encode()).hexdigest()}.uint8"
        target, size = cache_folder() / name, len(self.files) * prod(shape)
        try:
            with lock(str(target)):
                if not target.is_file() or target.stat().st_size != size:
                    if self.image_size is None:
                        self._require_equal_sizes((height, width))
                    self._write(target, shape, size)
        except OSError as error:
            allowed = f"a folder for decoded images: {error.strerror or error}"
            raise Invalid("MASKSWEEP_CACHE", target.parent, allowed) from error
        return target, shape

    def _require_equal_sizes(self, size: tuple[int, int]) -> None:
        for file in self.files:
            if (other := picture.size_of(self.folder, file)) != size:
                sizes = f"{file} has {list(other)} pixels and {self.files[0]} has {list(size)}"
                raise Invalid("image_size", None, f"{sizes}; [height, width] resizes them")

    def _write(self, target: Path, shape: tuple[int, int, int], size: int) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if size > (free := shutil.disk_usage(target.parent).free) // 2:
            space = f"{size:,} bytes for decoded images, and half of the free {free:,} may be taken"
            raise Invalid("path", self.folder, f"needs {space} (MASKSWEEP_CACHE)")
        temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as stream:
                write = partial(self._write_some, stream.fileno(), shape)
                with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                    tasks = pool.map(write, range(0, len(self.files), TASK_PICTURES))
                    try:
                        for _ in tasks:
                            pass
                    finally:
                        pool.shutdown(cancel_futures=True)
            temporary.replace(target)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _write_some(self, descriptor: int, shape: tuple[int, int, int], first: int) -> None:
        for number, file in enumerate(self.files[first : first + TASK_PICTURES], start=first):
            image = picture.read(self.folder, file, self.color_mode, shape[:2])
            data = memoryview(image.tobytes())
            offset = number * len(data)
            while data:  # a call may write a part only
                written = os.pwrite(descriptor, data, offset)
                data, offset = data[written:], offset + written


def cache_folder() -> Path:
    """Returns the folder for decoded images: `$MASKSWEEP_CACHE`, or `~/.cache/masksweep`."""
    return Path(os.environ.get("MASKSWEEP_CACHE") or Path.home() / ".cache" / "masksweep")
