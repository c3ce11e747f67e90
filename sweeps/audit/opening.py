"""Opens a saved model, whatever its format is: the content of a file says what it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from masksweep.strategies.base import Invalid
from masksweep.sweeps.audit.stored import FORMATS, StoredModel

SUFFIXES = (".keras", ".h5", ".hdf5", ".index")


def exists(key: str, path: str) -> bool:
    """Whether there is such a file or folder. Raises `Invalid` where that cannot be seen."""
    try:
        return Path(path).exists()
    except (OSError, ValueError) as error:  # too long, not permitted, or with a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise Invalid(key, path, f"cannot be read: {reason}") from error


def _opener(path: str) -> Callable[[str], AbstractContextManager[StoredModel]]:
    """What opens the file, by its content. Raises `Invalid` (key `path`) for no model's file."""
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
    raise Invalid("path", path, f"must be {FORMATS}")


def check(path: str) -> None:
    """Raise `Invalid` (key `path`) unless this may be a model's file. Loads no TensorFlow."""
    _opener(path)


def open_model(path: str) -> AbstractContextManager[StoredModel]:
    """The weights of a saved model, to be read inside of the `with` block.

    Args:
        path: A `.keras` file, an HDF5 file as Keras 2 or 3 writes them, a SavedModel folder, or
            the `.index` file of a TensorFlow checkpoint. What a file is, its content says.

    Raises:
        Invalid: (key `path`) It is none of these, it is damaged, it declares more than it holds,
            or it would be read from elsewhere.
    """
    return _opener(path)(path)
