"""Reads `.keras` archives that may come from anyone. Loads neither Keras nor TensorFlow.

A `.keras` file is a zip archive of a model's config, as JSON, and its weights, as an HDF5 file. A
small archive can unpack to any size, so the bytes are counted while it is unpacked.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from masksweep.strategies.core.npz import CHUNK_BYTES, COMPRESSION_METHODS, file_size
from masksweep.strategies.errors import Invalid

MAX_FILE_BYTES = 2**31
"""Largest size of a file that names a model to train, in bytes. It is read to compute a digest."""
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.weights.h5"
CONFIG_LIMIT = 2**24
"""Largest size of a model's config in bytes. The config of a large model has 1 or 2 MB."""
UNPACKED_LIMIT, EXPANSION_LIMIT = 2**28, 100
"""Weights may unpack to `UNPACKED_LIMIT` bytes, or to `EXPANSION_LIMIT` times their packed size if
that is more."""


def file_state(path: str) -> tuple[int, int]:
    """Returns when a file was modified, in nanoseconds, and its size.

    Raises:
        Invalid: (key `path`) There is no such file, or it has more than `MAX_FILE_BYTES` bytes.
    """
    if (size := file_size(path)) > MAX_FILE_BYTES:
        raise Invalid("path", path, f"more than {MAX_FILE_BYTES} bytes")
    return Path(path).stat().st_mtime_ns, size


@contextmanager
def open_archive(path: str) -> Iterator[zipfile.ZipFile]:
    """Opens a `.keras` file.

    Raises:
        Invalid: (key `path`) It is not a readable `.keras` file, or something inside the `with`
            block failed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except Invalid:
        raise
    except Exception as error:  # zipfile, zlib and JSON have different errors
        raise Invalid("path", path, "not a readable .keras file") from error


def read_config(path: str, archive: zipfile.ZipFile) -> dict[str, Any]:
    """Returns a model's config.

    Args:
        path: Path of the archive, for messages.
        archive: The archive.

    Raises:
        Invalid: (key `path`) The config unpacks to more than `CONFIG_LIMIT` bytes.
        ValueError: The archive has no config of a model.
    """
    _checked_entry(archive, CONFIG_FILE)
    with archive.open(CONFIG_FILE) as stream:
        text = stream.read(CONFIG_LIMIT + 1)
    if len(text) > CONFIG_LIMIT:
        raise Invalid(
            "path", path, f"its {CONFIG_FILE} unpacks to more than {CONFIG_LIMIT:,} bytes"
        )
    config = json.loads(text)
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise ValueError("no model's config")
    return config


def unpack_weights(path: str, archive: zipfile.ZipFile, to: Path) -> None:
    """Writes the weights to a file. Counts the bytes, because the declared size may be wrong.

    Args:
        path: Path of the archive.
        archive: The archive.
        to: Path of the HDF5 file to write.

    Raises:
        Invalid: (key `path`) The weights unpack to more than the limits of this module.
        ValueError: The archive has no weights, or packs them in an unusual way.
    """
    packed = min(_checked_entry(archive, WEIGHTS_FILE).compress_size, Path(path).stat().st_size)
    left = max(UNPACKED_LIMIT, EXPANSION_LIMIT * packed)
    with archive.open(WEIGHTS_FILE) as stream, to.open("wb") as file:
        while chunk := stream.read(CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise Invalid("path", path, f"its {WEIGHTS_FILE} unpacks to too many bytes")
            file.write(chunk)


def _checked_entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    try:
        part = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"no {name}") from None
    if part.compress_type not in COMPRESSION_METHODS:
        raise ValueError("packed in an unusual way")
    return part
