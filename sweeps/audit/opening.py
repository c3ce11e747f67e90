"""Opens saved models of all formats. The format is detected from the content of the file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.audit.stored import MODEL_FORMATS, StoredModel

SUFFIXES = (".keras", ".h5", ".hdf5", ".index")
"""Usual extensions of files with saved models."""


def exists(key: str, path: str) -> bool:
    """Returns whether a file or folder exists.

    Args:
        key: The setting that has the path, for the message.
        path: The path.

    Raises:
        Invalid: (key `key`) The system does not say whether the file exists.
    """
    try:
        return Path(path).exists()
    except (OSError, ValueError) as error:  # too long, not permitted, or with a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise Invalid(key, path, f"cannot be read: {reason}") from error


def _opener(path: str) -> Callable[[str], AbstractContextManager[StoredModel]]:
    """Returns the function that opens the file. Raises `Invalid` (key `path`) if it is no model."""
    from masksweep.sweeps.audit import keras_file, saved_model

    if not exists("path", path):
        raise Invalid("path", path, "no such file")
    if Path(path).is_dir() or Path(path).suffix == ".index":
        saved_model.check(path)
        return saved_model.open_variables
    if Path(path).is_file():
        try:
            with Path(path).open("rb") as file:
                start = file.read(8)
        except OSError as error:
            raise Invalid("path", path, f"cannot be read: {error.strerror}") from error
        if start.startswith(keras_file.ZIP_STARTS):
            return keras_file.open_archive
        if start == keras_file.HDF5_START:
            return keras_file.open_hdf5
    raise Invalid("path", path, f"must be {MODEL_FORMATS}")


def check(path: str) -> None:
    """Raises `Invalid` (key `path`) if the file cannot be a saved model. Loads no TensorFlow."""
    _opener(path)


def open_model(path: str) -> AbstractContextManager[StoredModel]:
    """Opens a saved model. Its weights can be read inside the `with` block.

    Args:
        path: Path of a `.keras` file, an HDF5 file of Keras 2 or 3, a SavedModel folder, or the
            `.index` file of a TensorFlow checkpoint.

    Raises:
        Invalid: (key `path`) The file has another format, is damaged, declares larger arrays than
            it has data for, or refers to data in other files.
    """
    return _opener(path)(path)
