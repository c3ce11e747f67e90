"""The `smallest` pattern: the weights that are nearest to zero (magnitude pruning)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.base import Array, Mask
from masksweep.strategies.patterns.base import Pattern, Shapes, check_sparsity
from masksweep.strategies.patterns.ranking import Scope, check_scope, keep_largest
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Smallest(Pattern):
    """The weights with the smallest magnitudes, as they are before the training.

    With `scope="weight"`, exactly `round(sparsity * size)` entries of each weight are masked; with
    `scope="global"`, of all targeted weights together. Of equal magnitudes, the first is masked
    first. The seed is ignored.

    Use it for a trained model: load its weights before `apply`. For pruning in rounds, see
    `Magnitude`.

    Raises:
        Invalid: The sparsity is outside [0, 1), or the scope is unknown.

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

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_scope(self.scope)

    def from_weights(self, weights: Mapping[str, Array], seed: int) -> dict[str, Mask]:
        sizes = {name: np.abs(array.astype(np.float64)) for name, array in weights.items()}
        return keep_largest(sizes, self.sparsity, self.scope)

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        """Returns masks of equal magnitudes: their number of masked entries is right."""
        return self.from_weights({name: np.zeros(shape) for name, shape in shapes.items()}, seed)
