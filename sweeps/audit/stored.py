"""The weights of a saved model by name, each of which can be read in blocks.

No model is built and nothing of a file runs: only arrays are read, whatever the file says that the
layers are. So the names come from the file: `layer/variable` where it tells which of Keras' layers
a variable belongs to, and `layer/0`, `layer/1`, ... where it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from masksweep.strategies.base import Array, Invalid
from masksweep.strategies.core.npz import regions

FORMATS = "a .keras, .h5 or .weights.h5 file, or a SavedModel folder"
NAMED = 20
"""How many weights a complaint names."""
BLOCK = 2**24
"""Bytes of a weight that are compared at once."""
NUMBERS = "buif"
"""Kinds of NumPy dtypes that a weight may have, beside bfloat16, which NumPy does not know."""


@dataclass(frozen=True)
class StoredWeight:
    """One array of a saved model, which is not read yet."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Callable[[int], Iterator[Array]]
    """(entries) -> the array in blocks of at most so many entries: see `regions`."""
    aliases: tuple[str, ...] = ()
    """What else a mask for it may be called."""
    by_place: bool = False
    """The file does not say what the variable is called: its name is its place in the layer."""

    @property
    def entries(self) -> int:
        """Most entries of a block."""
        return max(1, BLOCK // self.dtype.itemsize)


@dataclass(frozen=True)
class StoredModel:
    """The weights of a saved model, in the file's order."""

    path: str
    weights: tuple[StoredWeight, ...]

    def find(self, name: str) -> StoredWeight | None:
        """The weight of this name.

        That is its whole name, or what its file calls it (Keras' `variable.path`, `kernel:0`), or
        the last parts of its name, where it is the only one that ends so.

        Raises:
            Invalid: (key `path`) More than one weight may be meant.
        """
        name = name.removesuffix(":0")
        fits: tuple[Callable[[StoredWeight], bool], ...] = (
            lambda w: w.name == name,
            lambda w: name in w.aliases,
            lambda w: w.name.endswith(f"/{name}"),
        )
        for fit in fits:
            found = [w for w in self.weights if fit(w)]
            if len(found) > 1:
                names = " or ".join(w.name for w in found[:NAMED])
                raise Invalid("path", self.path, f"{name} may be {names}; give the whole name")
            if found:
                return found[0]
        return None

    def of_shape(self, shape: Sequence[int]) -> list[StoredWeight]:
        """The weights of this shape."""
        return [w for w in self.weights if w.shape == tuple(shape)]

    def listed(self) -> str:
        """The weights' names, with the shapes of those that are named by their place."""
        names = [f"{w.name} {list(w.shape)}" if w.by_place else w.name for w in self.weights]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return f"{', '.join(names[:NAMED])}{more}"


def sliced(array: Array) -> Callable[[int], Iterator[Array]]:
    """The `blocks` of an array that is in memory."""

    def blocks(entries: int) -> Iterator[Array]:
        for region in regions(array.shape, entries):
            yield np.asarray(array[region])

    return blocks


def is_number(dtype: np.dtype) -> bool:
    """Whether a weight can be of this dtype."""
    plain = dtype.kind in NUMBERS and dtype.itemsize <= 8
    return plain or dtype.name == "bfloat16"
