"""Inputs or targets of a model: one array, or several arrays by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")
Part = Any
"""An array with one item for each sample, a dict of such arrays by name, or `Weighted`."""

Split = tuple[Part, Part]
"""Inputs `[samples, *shape]` float32, and targets: `[samples]` int32 for classification,
`[samples, outputs]` float32 for multi-label (0 or 1) and regression. Inputs are an array, a dict of
arrays by the names of the model's inputs, or `StoredImages`. Targets are an array, a dict of arrays
by the names of the model's outputs, or `Weighted`: training targets with sample weights."""


class Named(dict[str, T]):
    """A dict that can be part of the key of a cache. Do not change it.

    Another order makes another key, because it makes another model.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and [*self.items()] == [*other.items()]

    def __ne__(self, other: object) -> bool:  # a dict has one of its own
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


class Weighted(NamedTuple):
    """Targets of a training whose samples have weights."""

    targets: Any
    """Targets, `[samples, ...]`."""
    weights: Any
    """The factor of each sample's loss, `[samples]`."""


def map_arrays(function: Callable[[Any], Any], part: Part) -> Part:
    """Returns what a function returns for an array, or for each array of a part, in its place.

    Example:
        >>> map_arrays(len, {"a": [1, 2], "b": [3, 4]})
        {'a': 2, 'b': 2}
    """
    if isinstance(part, Mapping):
        return {name: function(array) for name, array in part.items()}
    if isinstance(part, Weighted):
        return Weighted(*map(function, part))
    return function(part)


def take(part: Part, rows: Any) -> Part:
    """Returns the samples at these indices, or of this slice.

    Example:
        >>> take({"a": np.array([1, 2, 3])}, slice(2))
        {'a': array([1, 2])}
    """
    return map_arrays(lambda array: array[rows], part)


def arrays_of(part: Part) -> list[Any]:
    """Returns all arrays, in their order."""
    if isinstance(part, Mapping):
        return [*part.values()]
    return [*part] if isinstance(part, Weighted) else [part]


def count(part: Part) -> int:
    """Returns the number of samples."""
    return len(arrays_of(part)[0])


def sample_shape(part: Part) -> Any:
    """Returns the shape of one sample, or the shapes by name, which can be a key of a cache.

    Example:
        >>> sample_shape(np.zeros((10, 4)))
        (4,)
        >>> sample_shape({"a": np.zeros((10, 4))})
        {'a': (4,)}
    """
    shape = map_arrays(lambda array: tuple(array.shape[1:]), part)
    return Named(shape) if isinstance(shape, dict) else shape


def join(parts: list[Part]) -> Part:
    """Returns the samples of several parts, one after the other."""
    if isinstance(parts[0], Mapping):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)
