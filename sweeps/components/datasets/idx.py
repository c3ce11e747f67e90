"""Reads idx files, as those of MNIST and Fashion-MNIST, which may come from anyone."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.core.npz import MAX_ARRAY_BYTES, read_exactly
from masksweep.strategies.errors import Invalid
from masksweep.sweeps.components.datasets.content import files_digest

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""Names of the files with the images and with the labels of a part; `.gz` may follow."""
ANY_FILE = "*-ubyte*"
"""The files of a folder whose content belongs to the digest."""
UNSIGNED_BYTE = 0x08
"""Code of the type in the header."""


def find(folder: str) -> dict[str, Path]:
    """Returns the four files of a folder by their names without `.gz`.

    Raises:
        Invalid: (key `path`) The folder does not have them all.
    """
    files = {}
    for name in (name for names in FILES.values() for name in names):
        candidates = [Path(folder, name + suffix) for suffix in ("", ".gz")]
        found = next((file for file in candidates if file.is_file()), None)
        if found is None:
            raise Invalid("path", folder, f"must be a folder with {name} or {name}.gz")
        if found.is_symlink():  # a config of someone else may name no file outside of its folder
            raise Invalid("path", folder, f"{found.name} must be a file, not a link")
        files[name] = found
    return files


def digest(folder: str) -> str:
    """Returns the SHA-256 of the idx files of a folder with their names.

    Raises:
        Invalid: (key `path`) The folder does not have them all.
    """
    find(folder)
    try:
        files = [file.name for file in Path(folder).glob(ANY_FILE) if file.is_file()]
        return files_digest(folder, sorted(files))
    except OSError as error:
        raise Invalid("path", folder, "must be a folder of files that can be read") from error


def read(folder: str, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Reads the images `[samples, height, width]` and the labels `[samples]` of a part.

    Args:
        folder: The folder with the files.
        part: `train` or `test`.

    Raises:
        Invalid: (key `path`) A file is missing or damaged, or they do not fit together.
    """
    files, (images_name, labels_name) = find(folder), FILES[part]
    images = _read_file(folder, files[images_name], axes=3)
    labels = _read_file(folder, files[labels_name], axes=1)
    if len(images) != len(labels):
        counts = f"{images_name} has {len(images)} images and {labels_name} {len(labels)} labels"
        raise Invalid("path", folder, f"{counts}; the numbers must be equal")
    return images, labels


def _read_file(folder: str, file: Path, axes: int) -> NDArray[np.uint8]:
    try:
        with _open(file) as stream:
            zeros, kind, header_axes = struct.unpack(">HBB", read_exactly(stream, 4))
            if (zeros, kind, header_axes) != (0, UNSIGNED_BYTE, axes):
                raise ValueError(f"no header of an array of bytes with {axes} axes")
            shape = struct.unpack(f">{axes}I", read_exactly(stream, 4 * axes))
            size = math.prod(shape)
            if not 0 < size <= MAX_ARRAY_BYTES:
                raise ValueError(f"the shape {list(shape)} is empty or too large")
            array = np.frombuffer(read_exactly(stream, size), np.uint8).reshape(shape)
            if stream.read(1):
                raise ValueError("more data than its header says")
            return array
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise Invalid("path", folder, f"{file.name} is no idx file: {error}") from error


def _open(file: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file, "rb")) if file.suffix == ".gz" else file.open("rb")
