"""Whole slices of weights: the part that `rows`, `columns`, `axis` and `heads` have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.base import Pattern, Shapes, check_sparsity, checked_indices
from masksweep.strategies.patterns.drawing import kept_units
from masksweep.strategies.plan import Array, Mask

By = Literal["random", "l1", "l2"]
"""How slices or blocks are chosen: at random, or those with the smallest L1 or L2 norm."""


def check_by(by: str) -> None:
    """Raises `Invalid` unless `by` is `random`, `l1` or `l2`."""
    require(by in ("random", "l1", "l2"), "by", by, "random, l1 or l2")


def sizes(array: Array, by: By) -> Array:
    """Returns the magnitudes (`l1`) or the squares (`l2`) of the entries, in float64.

    Slices are ranked by their sums as by their norms.
    """
    array = array.astype(np.float64)
    return np.abs(array) if by == "l1" else array**2


class Slices(Pattern):
    """Base class of patterns that mask whole slices along one axis of each weight.

    A subclass is a dataclass with the fields below.
    """

    sparsity: float
    indices: Sequence[int] | None
    by: By

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        object.__setattr__(self, "indices", checked_indices(self.indices))
        check_by(self.by)
        by_index = self.indices is not None and self.by != "random"
        require(not by_index, "by", self.by, "random if indices is given")

    def along(self, name: str, shape: tuple[int, ...]) -> int | None:
        """Returns the axis of a weight's slices; None if all its entries are kept.

        Raises:
            Invalid: The weight does not have the axis.
        """
        raise NotImplementedError

    def units(self, shapes: Shapes) -> dict[str, int]:
        """Returns, for each weight that has slices, the number of units that are chosen from.

        By default each slice is a unit. If there are more units, each slice belongs to several in
        a row, and is masked if all of them are.
        """
        axes = {name: self.along(name, shape) for name, shape in shapes.items()}
        return {name: shapes[name][axis] for name, axis in axes.items() if axis is not None}

    def description(self, name: str) -> str:
        """Returns what the units of a weight are, for messages, such as `inputs of a/kernel`."""
        raise NotImplementedError

    def group(self, name: str) -> str:
        """Returns a name that weights share if the same units of them are masked."""
        return name

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        """Returns random slices, or those of `indices`.

        With `by` other than `random`, it returns masks of equal norms: their number of masked
        entries is right.
        """
        if self.by != "random":
            return self.from_weights({n: np.zeros(s) for n, s in shapes.items()}, seed)

        def kept(name: str, units: int) -> Mask:
            group, of = self.group(name), self.description(name)
            return kept_units(units, self.sparsity, self.indices, seed=seed, name=group, of=of)

        return self._masks(shapes, kept)

    def from_weights(self, weights: Mapping[str, Array], seed: int) -> dict[str, Mask]:
        if self.by == "random":
            return super().from_weights(weights, seed)
        # the units of a group are ranked by the sums over all its weights with as many units
        shapes = {name: array.shape for name, array in weights.items()}
        sums: dict[tuple[str, int], Array] = {}
        for name, units in self.units(shapes).items():
            array, axis = weights[name], self.along(name, shapes[name])
            assert axis is not None
            shared_by = units // shapes[name][axis]
            key = self.group(name), units
            sums[key] = sums.get(key, 0) + np.repeat(self._sums(array, axis), shared_by)
        return self._masks(shapes, lambda name, n: self._largest(sums[self.group(name), n]))

    def _masks(self, shapes: Shapes, kept: Callable[[str, int], Mask]) -> dict[str, Mask]:
        """Returns the masks from a function (name, number of units) -> which units are kept."""
        units = self.units(shapes)
        masks_by_name = {}
        for name, shape in shapes.items():
            axis = self.along(name, shape)
            if axis is None:
                masks_by_name[name] = np.ones(shape, bool)
                continue
            along = [1] * len(shape)
            along[axis] = shape[axis]
            slices = kept(name, units[name]).reshape(shape[axis], -1).any(axis=1).reshape(along)
            masks_by_name[name] = np.broadcast_to(slices, shape).copy()
        return masks_by_name

    def _sums(self, array: Array, axis: int) -> Array:
        """Returns the sum of the magnitudes or of the squares of each slice, in float64."""
        slices = np.moveaxis(sizes(array, self.by), axis, 0)
        sums: Array = slices.sum(axis=tuple(range(1, slices.ndim)))
        return sums

    def _largest(self, sums: Array) -> Mask:
        mask = np.ones(len(sums), bool)
        # a stable sort keeps the order of equal norms, so every machine masks the same
        mask[np.argsort(sums, kind="stable")[: round(self.sparsity * len(sums))]] = False
        return mask
