"""Arrays of a stranger's HDF5 file: nothing is read from elsewhere, and no more than it holds.

HDF5 can name arrays in other files (external links, external storage, virtual datasets), unpack a
small file to any size, and load filters from shared libraries. Keras writes none of that, so none
of it is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from masksweep.strategies.base import Array, Invalid
from masksweep.strategies.core.npz import regions
from masksweep.sweeps.audit.stored import StoredWeight, is_number

DEPTH, OBJECTS = 64, 100_000
"""Groups inside of groups, and groups and arrays in all: ten and some thousand in large models."""
TEXT = 1000
"""Characters of a text that is read from a file, such as a layer's name."""


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Whatever is wrong with the file is raised as `Invalid` (key `path`)."""
    try:
        yield
    except Invalid:
        raise
    except Exception as error:  # h5py raises whatever the library's error is nearest to
        raise Invalid("path", path, "not a readable HDF5 file") from error


class Tree:
    """The groups of an open file, each of which may be entered once.

    Groups are linked, so one may stand in many places, even inside of itself.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._entered: set[int] = set()
        self._left = OBJECTS

    def children(self, group: h5py.Group) -> dict[str, Any]:
        """The groups and datasets in a group, by name.

        Raises:
            Invalid: (key `path`) One is a link to elsewhere, the group was entered already, or
                the file has too many.
        """
        address = h5py.h5o.get_info(group.id).addr
        if address in self._entered or group.name.count("/") > DEPTH:
            raise Invalid("path", self._path, f"{_short(group.name)}: groups in groups without end")
        self._entered.add(address)
        self._left -= len(group)
        if self._left < 0:
            raise Invalid("path", self._path, f"has more than {OBJECTS:,} groups and arrays")
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                where = _short(f"{group.name}/{name}")
                raise Invalid("path", self._path, f"{where} is a link; Keras writes none")
        return {name: group[name] for name in group}


def text(thing: h5py.Group | h5py.Dataset, attribute: str) -> str:
    """A short text that is kept with a group or dataset, or nothing if there is none."""
    if attribute not in thing.attrs:
        return ""
    kept = h5py.h5a.open(thing.id, attribute.encode())
    if kept.shape != () or kept.get_storage_size() > 4 * TEXT:  # of any length: a pointer's size
        return ""
    value = thing.attrs[attribute]
    return value if isinstance(value, str) and len(value) <= TEXT else ""


def _short(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:100]}...{name[-90:]}"


def weight(path: str, dataset: h5py.Dataset, name: str, **more: Any) -> StoredWeight | None:
    """A dataset as a weight of this name, or None if it is no array of numbers.

    Raises:
        Invalid: (key `path`) It is stored elsewhere or packed, or it declares more than it holds.
    """
    if not dataset.shape and dataset.shape != ():
        return None  # no array at all
    dtype = dtype_of(dataset)
    if not is_number(dtype):
        return None
    plist = dataset.id.get_create_plist()
    declared = math.prod(dataset.shape) * dtype.itemsize
    stored = dataset.id.get_storage_size()
    wrong = ""
    if dataset.external or dataset.is_virtual:
        wrong = "is stored in another file; Keras writes none so"
    elif plist.get_nfilters():
        names = [
            plist.get_filter(i)[3].decode(errors="replace")
            for i in range(3)[: plist.get_nfilters()]
        ]
        wrong = f"is packed ({', '.join(names)}); unpack it with h5repack -f NONE"
    elif declared > stored:
        wrong = f"declares {declared:,} bytes and holds {stored:,}"
    if wrong:
        raise Invalid("path", path, f"{_short(dataset.name)} {wrong}")

    def blocks(entries: int) -> Iterator[Array]:
        with readable(path):
            for region in regions(dataset.shape, entries):
                yield _native(np.asarray(dataset[region]), dtype)

    return StoredWeight(name, tuple(dataset.shape), dtype, blocks, **more)


def dtype_of(dataset: h5py.Dataset) -> np.dtype:
    """The dtype of a dataset in this machine's byte order; two raw bytes are Keras' bfloat16."""
    if dataset.dtype == np.dtype("V2"):
        import ml_dtypes

        bfloat16: np.dtype = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    dtype: np.dtype = dataset.dtype.newbyteorder("=")
    return dtype


def _native(array: Array, dtype: np.dtype) -> Array:
    native: Array = (
        array.view(dtype) if array.dtype.kind == "V" else array.astype(dtype, copy=False)
    )
    return native
