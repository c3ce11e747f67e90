"""The `rows` pattern: whole input units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.base import Mask
from masksweep.strategies.patterns.base import (
    Pattern,
    Shapes,
    check_indices,
    check_sparsity,
    kept_units,
)
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Rows(Pattern):
    """Whole input units (second-last axis): those of `indices`, or `round(sparsity * units)` at
    random.

    The rows of an Embedding are its words. A weight with one axis, such as a bias, has no inputs.
    All its entries are kept.

    Raises:
        Invalid: The sparsity is outside [0, 1), or `indices` is empty, has a negative index or has
            an index twice.

    Example:
        >>> Rows(indices=(0, 2)).masks({"words/embeddings": (4, 2)}, seed=0)["words/embeddings"]
        array([[False, False],
               [ True,  True],
               [False, False],
               [ True,  True]])
    """

    name: ClassVar[str] = "rows"
    sparsity: float = 0.5
    """Fraction of the units that is masked, in [0, 1). Ignored if `indices` is given."""
    indices: Sequence[int] | None = None
    """The units that are masked, counted from 0; None chooses them at random."""

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_indices(self.indices)

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        masks_by_name = {}
        for name, shape in shapes.items():
            if len(shape) < 2:
                masks_by_name[name] = np.ones(shape, bool)
                continue
            of = f"inputs of {name}"
            kept = kept_units(shape[-2], self.sparsity, self.indices, seed=seed, name=name, of=of)
            masks_by_name[name] = np.broadcast_to(kept[:, None], shape).copy()
        return masks_by_name
