"""Arrays from a stranger's file: `.npz` only, and never a pickle."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from strategies.base import Array, Invalid


def read_arrays(path: str) -> dict[str, Array]:
    """The arrays of a `.npz` file by name.

    Raises `Invalid` (key `path`) if there is no such file, it is no `.npz`, or it holds objects.
    """
    if not Path(path).is_file():
        raise Invalid("path", path, "no such file")
    try:
        with Path(path).open("rb") as stream:  # NumPy leaves it open where it fails
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("one array, without a name")
            arrays = {name: file[name] for name in file.files}
            if not all(isinstance(a, np.ndarray) for a in arrays.values()):
                raise ValueError("something else than arrays")
            return arrays
    except Exception as error:  # zlib, zipfile and NumPy raise some ten kinds
        # NumPy says "pickle" of anything that is not its own format
        pickled = "Object arrays" in str(error)
        reason = "holds pickled objects" if pickled else "not a readable .npz file"
        raise Invalid("path", path, f"{reason}; plain numeric arrays by weight name") from error


def digest(path: str) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
