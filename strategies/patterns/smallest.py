"""The `smallest` pattern: the weights that are nearest to zero (magnitude pruning)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.core.npz import read_arrays, read_weights
from masksweep.strategies.errors import require
from masksweep.strategies.patterns.base import Pattern, Shapes, check_sparsity
from masksweep.strategies.patterns.ranking import Scope, check_scope, keep_largest
from masksweep.strategies.plan import Array, Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Smallest(Pattern):
    """The weights with the smallest magnitudes before the training, or in a checkpoint.

    With `scope="weight"`, exactly `round(sparsity * size)` entries of each weight are masked; with
    `scope="global"`, of all targeted weights together. Of equal magnitudes, the first is masked
    first. The seed is ignored.

    Use it for a trained model: load its weights before `apply`, or give a file with them as `path`.
    The latter ranks by the trained weights, and trains from those that the model has. For pruning
    in rounds, see `Magnitude`.

    Raises:
        Invalid: The sparsity is outside [0, 1), the scope is unknown, or the file cannot be read or
            has no array of numbers of a weight's shape.

    Example:
        >>> weights = {"hidden/kernel": np.array([[0.1, -3.0], [2.0, -0.2]])}
        >>> Smallest(0.5).from_weights(weights, seed=0)["hidden/kernel"].tolist()
        [[False, True], [True, False]]

    Reference:
        Han et al., Learning both Weights and Connections, NeurIPS 2015, arXiv:1506.02626.
    """

    name: ClassVar[str] = "smallest"
    sparsity: float = 0.9
    """Fraction of the entries that is masked, in [0, 1)."""
    scope: Scope = "weight"
    """Whether the entries of each weight are ranked, or those of all weights together."""
    path: str | None = None
    """Path of a `.npz` file with weights by name, such as `hidden/kernel`, that are ranked instead
    of the weights before the training. It may have more arrays than there are targeted weights."""

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_scope(self.scope)
        if self.path is not None:
            read_arrays(self.path)

    def from_weights(self, weights: Mapping[str, Array], seed: int) -> dict[str, Mask]:
        if self.path is not None:
            weights = _checkpoint(self.path, {n: array.shape for n, array in weights.items()})
        sizes = {name: np.abs(array.astype(np.float64)) for name, array in weights.items()}
        return keep_largest(sizes, self.sparsity, self.scope)

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        """Returns masks that are right in their number of masked entries only, without a file."""
        return self.from_weights({name: np.zeros(shape) for name, shape in shapes.items()}, seed)


def _checkpoint(path: str, shapes: Shapes) -> dict[str, Array]:
    """Returns the weights of a file, by name. Raises `Invalid` if one has no numbers to rank."""
    weights = read_weights(path, shapes, "weights")
    for name, shape in shapes.items():
        array = weights[name]
        allowed = f"a file with numbers of shape {shape} for {name}; it has"
        is_numeric = array.shape == shape and array.dtype.kind in "iuf"
        require(is_numeric, "path", path, f"{allowed} {array.dtype} of shape {array.shape}")
        require(not np.isnan(array).any(), "path", path, f"{allowed} NaN")
    return weights
