"""Arrays from a stranger's file: `.npz` only, and never a pickle."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from strategies.base import Array, Invalid

LARGE = 2**31
"""Bytes of a file, and of what is in it: a small one may have been packed from far more."""


def read_arrays(path: str) -> dict[str, Array]:
    """The arrays of a `.npz` file by name.

    Raises `Invalid` (key `path`) if there is no such file, it is no `.npz`, larger than `LARGE`, or
    it holds objects.
    """
    try:
        if not Path(path).is_file():
            raise Invalid("path", path, "no such file")
        with Path(path).open("rb") as stream:  # NumPy leaves it open where it fails
            with zipfile.ZipFile(stream) as packed:
                sizes = [Path(path).stat().st_size, *(part.file_size for part in packed.infolist())]
            if sum(sizes) > LARGE:
                raise Invalid("path", path, f"more than {LARGE} bytes, packed or unpacked")
            stream.seek(0)
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("one array, without a name")
            arrays = {name: file[name] for name in file.files}
            if not all(isinstance(a, np.ndarray) for a in arrays.values()):
                raise ValueError("something else than arrays")
            return arrays
    except Invalid:
        raise
    except Exception as error:  # zlib, zipfile and NumPy raise some ten kinds
        # NumPy says "pickle" of anything that is not its own format
        pickled = "Object arrays" in str(error)
        reason = "holds pickled objects" if pickled else "not a readable .npz file"
        raise Invalid("path", path, f"{reason}; plain numeric arrays by weight name") from error


def digest(path: str) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
