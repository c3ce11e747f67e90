"""Reads arrays of HDF5 files that may come from anyone.

An HDF5 file can refer to arrays in other files (external links, external storage, virtual
datasets), can unpack to any size, and can load filters from shared libraries. Keras writes none of
these, so a file that has them is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from masksweep.strategies.core.npz import regions
from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array
from masksweep.sweeps.audit.stored import StoredWeight, is_number

MAX_DEPTH, MAX_OBJECTS = 64, 100_000
"""Largest depth of nested groups, and largest number of groups and arrays. Large models have a
depth of about ten, and some thousand groups and arrays."""
MAX_TEXT_CHARACTERS = 1000
"""Largest number of characters of a text that is read from a file, such as a layer's name."""


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turns any exception inside a `with` block into `Invalid` (key `path`)."""
    try:
        yield
    except Invalid:
        raise
    except Exception as error:  # h5py maps HDF5's errors to many kinds of exceptions
        raise Invalid("path", path, "not a readable HDF5 file") from error


class Tree:
    """The groups of an open file. Each group can be entered only once.

    A group can be linked from several groups, even from a group inside itself, so that a walk over
    the file would have no end.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._entered: set[int] = set()
        self._left = MAX_OBJECTS

    def children(self, group: h5py.Group) -> dict[str, Any]:
        """Enters a group, and returns the groups and datasets in it by name.

        Raises:
            Invalid: (key `path`) A member is a soft or external link, the group was entered
                before or is nested too deep, or the file has too many groups and arrays.
        """
        address = h5py.h5o.get_info(group.id).addr
        if address in self._entered or group.name.count("/") > MAX_DEPTH:
            name = _shorten(group.name)
            raise Invalid("path", self._path, f"{name}: groups are nested too deep")
        self._entered.add(address)
        self._left -= len(group)
        if self._left < 0:
            raise Invalid("path", self._path, f"has more than {MAX_OBJECTS:,} groups and arrays")
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                where = _shorten(f"{group.name}/{name}")
                raise Invalid("path", self._path, f"{where} is a link, which Keras does not write")
        return {name: group[name] for name in group}


def text(thing: h5py.Group | h5py.Dataset, attribute: str) -> str:
    """Returns an attribute that is a short text; empty if there is no such attribute.

    Args:
        thing: The group or dataset that has the attribute.
        attribute: Name of the attribute.
    """
    if attribute not in thing.attrs:
        return ""
    stored = h5py.h5a.open(thing.id, attribute.encode())
    # a text of variable length has the storage size of a pointer
    if stored.shape != () or stored.get_storage_size() > 4 * MAX_TEXT_CHARACTERS:
        return ""
    value = thing.attrs[attribute]
    return value if isinstance(value, str) and len(value) <= MAX_TEXT_CHARACTERS else ""


def _shorten(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:100]}...{name[-90:]}"


def weight(path: str, dataset: h5py.Dataset, name: str, **more: Any) -> StoredWeight | None:
    """Returns a dataset as a weight, or None if it is not an array of numbers.

    Args:
        path: Path of the file, for messages.
        dataset: The dataset.
        name: Name of the weight.
        **more: Other fields of `StoredWeight`.

    Raises:
        Invalid: (key `path`) The data are in another file or packed, or the file has less data
            than the dataset's shape needs.
    """
    if not dataset.shape and dataset.shape != ():
        return None  # an empty dataspace, which has no shape
    dtype = dtype_of(dataset)
    if not is_number(dtype):
        return None
    plist = dataset.id.get_create_plist()
    declared = math.prod(dataset.shape) * dtype.itemsize
    stored = dataset.id.get_storage_size()
    problem = ""
    if dataset.external or dataset.is_virtual:
        problem = "is stored in another file, which Keras does not do"
    elif plist.get_nfilters():
        names = [
            plist.get_filter(i)[3].decode(errors="replace")
            for i in range(3)[: plist.get_nfilters()]
        ]
        problem = f"is packed ({', '.join(names)}); unpack it with h5repack -f NONE"
    elif declared > stored:
        problem = f"declares {declared:,} bytes and holds {stored:,}"
    if problem:
        raise Invalid("path", path, f"{_shorten(dataset.name)} {problem}")

    def blocks(entries: int) -> Iterator[Array]:
        with readable(path):
            for region in regions(dataset.shape, entries):
                yield _native(np.asarray(dataset[region]), dtype)

    return StoredWeight(name, tuple(dataset.shape), dtype, blocks, **more)


def dtype_of(dataset: h5py.Dataset) -> np.dtype:
    """Returns the dtype in native byte order. Keras stores a bfloat16 as two raw bytes."""
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
