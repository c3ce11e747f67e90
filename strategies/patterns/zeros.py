"""The `zeros` pattern: the zeros that the weights already have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.patterns.base import Pattern, Shapes
from masksweep.strategies.plan import Array, Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Zeros(Pattern):
    """The entries that are zero before the training, as in a model that was pruned elsewhere.

    The seed is ignored.

    Example:
        >>> weights = {"hidden/kernel": np.array([[0.0, -3.0], [-0.0, 2.0]])}
        >>> Zeros().from_weights(weights, seed=0)["hidden/kernel"].tolist()
        [[False, True], [False, True]]
    """

    name: ClassVar[str] = "zeros"

    def from_weights(self, weights: Mapping[str, Array], seed: int) -> dict[str, Mask]:
        return {name: array != 0 for name, array in weights.items()}

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        """Returns masks that keep everything, because without values there are no zeros."""
        return {name: np.ones(shape, bool) for name, shape in shapes.items()}
