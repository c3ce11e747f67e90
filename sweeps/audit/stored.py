"""The weights of a saved model by name. Each can be read in blocks.

Only arrays are read: no model is built, and no code from the file is run. So the names of weights
come from the file: `layer/variable` if the file says which Keras layer a variable belongs to, else
`layer/0`, `layer/1`, ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from masksweep.strategies.core.npz import regions
from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array

MODEL_FORMATS = "a .keras, .h5 or .weights.h5 file, or a SavedModel folder"
MAX_LISTED_WEIGHTS = 20
"""Largest number of weights that a message names."""
BLOCK_BYTES = 2**24
"""Size in bytes of the part of a weight that is compared at once."""
NUMBER_KINDS = "buif"
"""Kinds of NumPy dtypes that a weight may have. bfloat16 is allowed too; NumPy does not have it."""


@dataclass(frozen=True)
class StoredWeight:
    """An array of a saved model, which is read only in blocks."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Callable[[int], Iterator[Array]]
    """`blocks(entries)` yields the array in blocks of at most `entries` entries, see `regions`."""
    aliases: tuple[str, ...] = ()
    """Other names under which `StoredModel.find` finds the weight."""
    by_place: bool = False
    """Whether the name is only the variable's number in its layer, because the file has no name."""

    @property
    def entries(self) -> int:
        """Largest number of entries of a block of `BLOCK_BYTES` bytes."""
        return max(1, BLOCK_BYTES // self.dtype.itemsize)


@dataclass(frozen=True)
class StoredModel:
    """The weights of a saved model, in the order of the file."""

    path: str
    weights: tuple[StoredWeight, ...]

    def find(self, name: str) -> StoredWeight | None:
        """Returns the weight with a name, or None if there is none.

        Args:
            name: The whole name of the weight, one of its aliases (such as Keras'
                `variable.path`), or the last parts of its name if no other weight's name has the
                same end. A `:0` at the end is ignored.

        Raises:
            Invalid: (key `path`) The name fits more than one weight.
        """
        name = name.removesuffix(":0")
        fits: tuple[Callable[[StoredWeight], bool], ...] = (
            lambda w: w.name == name,
            lambda w: name in w.aliases,
            lambda w: w.name.endswith(f"/{name}"),
        )
        for fit in fits:
            weights = [w for w in self.weights if fit(w)]
            if len(weights) > 1:
                names = " or ".join(w.name for w in weights[:MAX_LISTED_WEIGHTS])
                raise Invalid("path", self.path, f"{name} may be {names}; give the whole name")
            if weights:
                return weights[0]
        return None

    def of_shape(self, shape: Sequence[int]) -> list[StoredWeight]:
        """Returns the weights that have this shape."""
        return [w for w in self.weights if w.shape == tuple(shape)]

    def listed(self) -> str:
        """Returns the names of the weights as text, with shapes for those named by number."""
        names = [f"{w.name} {list(w.shape)}" if w.by_place else w.name for w in self.weights]
        others = len(names) - MAX_LISTED_WEIGHTS
        suffix = f" and {others} more" if others > 0 else ""
        return f"{', '.join(names[:MAX_LISTED_WEIGHTS])}{suffix}"


def sliced(array: Array) -> Callable[[int], Iterator[Array]]:
    """Returns the function `StoredWeight.blocks` for an array in memory."""

    def blocks(entries: int) -> Iterator[Array]:
        for region in regions(array.shape, entries):
            yield np.asarray(array[region])

    return blocks


def is_number(dtype: np.dtype) -> bool:
    """Returns whether a weight can have this dtype."""
    is_numeric = dtype.kind in NUMBER_KINDS and dtype.itemsize <= 8
    return is_numeric or dtype.name == "bfloat16"
