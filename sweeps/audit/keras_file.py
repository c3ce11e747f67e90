"""The weights in a Keras file: `.keras`, `.h5`, `.weights.h5`. Loads neither Keras nor TensorFlow.

What the config of a model names, Keras would call, and ways around its safe mode were found again
and again (CVE-2025-1550, -8747, -9906, -49655, CVE-2026-1462); a model that is built takes what
memory its config says. So none is built, and of the config only names and classes are read.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from masksweep.strategies.base import Invalid
from masksweep.strategies.core.npz import CHUNK, PACKINGS
from masksweep.sweeps.audit.stored import StoredModel

ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
HDF5_START = b"\x89HDF\r\n\x1a\n"
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
CONFIG_LIMIT = 2**24
"""Bytes of a model's config. That of a large one has one or two million."""
UNPACKED_LIMIT, EXPANSION_LIMIT = 2**28, 100
"""Bytes, and how many times the packed bytes, that weights may unpack to, whichever is more."""


@contextmanager
def open_archive(path: str) -> Iterator[StoredModel]:
    """The weights of a `.keras` file.

    Raises:
        Invalid: (key `path`) It is not a `.keras` file, damaged, or would unpack to far more.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpacked = Path(folder, WEIGHTS)
        try:
            with zipfile.ZipFile(path) as archive:
                config = _config(path, archive)
                _unpack(path, archive, unpacked)
        except Invalid:
            raise
        except OSError as error:
            reason = f"cannot be unpacked to {folder}: {error.strerror}"
            raise Invalid("path", path, reason) from error
        except Exception as error:  # zipfile, zlib and JSON each have errors of their own
            raise Invalid("path", path, "not a readable .keras file") from error
        with open_hdf5(path, unpacked, config) as model:
            yield model


def _config(path: str, archive: zipfile.ZipFile) -> Mapping[str, Any]:
    _known_packing(archive, CONFIG)
    with archive.open(CONFIG) as stream:
        text = stream.read(CONFIG_LIMIT + 1)
    if len(text) > CONFIG_LIMIT:
        raise Invalid("path", path, f"its {CONFIG} unpacks to more than {CONFIG_LIMIT:,} bytes")
    config = json.loads(text)
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise ValueError("no model's config")
    return config


def _unpack(path: str, archive: zipfile.ZipFile, to: Path) -> None:
    """Write the weights to a file; what they are said to unpack to may be a lie."""
    packed = min(_known_packing(archive, WEIGHTS).compress_size, Path(path).stat().st_size)
    left = max(UNPACKED_LIMIT, EXPANSION_LIMIT * packed)
    with archive.open(WEIGHTS) as stream, to.open("wb") as file:
        while chunk := stream.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise Invalid("path", path, f"its {WEIGHTS} unpacks to more than it should")
            file.write(chunk)


def _known_packing(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    part = archive.getinfo(name)
    if part.compress_type not in PACKINGS:
        raise ValueError("packed in an unusual way")
    return part


@contextmanager
def open_hdf5(
    path: str, file: Path | None = None, config: Mapping[str, Any] | None = None
) -> Iterator[StoredModel]:
    """The weights of an HDF5 file as Keras 2 or 3 writes it.

    Args:
        path: What complaints say; also the file, where that is not given.
        file: The file.
        config: The model's config, if there is one.

    Raises:
        Invalid: (key `path`) It is damaged, or not as Keras writes it.
    """
    import h5py

    from masksweep.sweeps.audit.hdf5 import readable
    from masksweep.sweeps.audit.keras_layout import Keras3, is_keras3
    from masksweep.sweeps.audit.keras_legacy_layout import legacy_weights

    with readable(path):
        opened = h5py.File(file or path, "r")
    with opened:
        with readable(path):
            if is_keras3(opened):
                weights = Keras3(path, opened, config).weights()
            else:
                weights = legacy_weights(path, opened)
        if not weights:
            raise Invalid("path", path, "holds no weights of a Keras model")
        yield StoredModel(path, tuple(weights))
