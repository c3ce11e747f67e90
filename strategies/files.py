"""Arrays from a stranger's file: `.npz` only, and never a pickle."""

from __future__ import annotations

import hashlib
import zipfile
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
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise Invalid("path", path, "not a .npz file")
            return {name: file[name] for name in file.files}
    except Invalid:
        raise
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        # NumPy says "pickle" of anything that is not its own format
        pickled = "Object arrays" in str(error)
        reason = "holds pickled objects" if pickled else "not a readable .npz file"
        raise Invalid("path", path, f"{reason}; plain numeric arrays by weight name") from error


def digest(path: str) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
