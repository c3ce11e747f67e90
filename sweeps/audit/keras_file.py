"""Opens Keras files: `.keras`, `.h5`, `.weights.h5`. Loads neither Keras nor TensorFlow.

When Keras builds a model, it calls functions that the config names. Its safe mode was bypassed
several times (CVE-2025-1550, -8747, -9906, -49655, CVE-2026-1462). The config also decides how much
memory the model takes. So no model is built here: only the arrays are read, and from the config
only names, classes and flags of the layers.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.audit.stored import StoredModel
from masksweep.sweeps.common.keras_archive import WEIGHTS_FILE, read_config, unpack_weights

ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
HDF5_START = b"\x89HDF\r\n\x1a\n"


@contextmanager
def open_archive(path: str) -> Iterator[StoredModel]:
    """Opens a `.keras` file. Its weights can be read inside the `with` block.

    Raises:
        Invalid: (key `path`) The file is not a `.keras` file, is damaged, or unpacks to more than
            the limits of `keras_archive`.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpacked = Path(folder, WEIGHTS_FILE)
        try:
            with zipfile.ZipFile(path) as archive:
                config = read_config(path, archive)
                unpack_weights(path, archive, unpacked)
        except Invalid:
            raise
        except OSError as error:
            reason = f"cannot be unpacked to {folder}: {error.strerror}"
            raise Invalid("path", path, reason) from error
        except Exception as error:  # zipfile, zlib and JSON have different errors
            raise Invalid("path", path, "not a readable .keras file") from error
        with open_hdf5(path, unpacked, config) as model:
            yield model


@contextmanager
def open_hdf5(
    path: str, file: Path | None = None, config: Mapping[str, Any] | None = None
) -> Iterator[StoredModel]:
    """Opens an HDF5 file of Keras 2 or 3. Its weights can be read inside the `with` block.

    Args:
        path: Path for messages, and of the file if `file` is not given.
        file: Path of the file, if it was unpacked from a `.keras` file.
        config: The model's config from the `.keras` file.

    Raises:
        Invalid: (key `path`) The file is damaged, or its layout is not one of Keras.
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
