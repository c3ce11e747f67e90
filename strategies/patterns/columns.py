"""The `columns` pattern: whole output units."""

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
class Columns(Pattern):
    """Whole output units (last axis): those of `indices`, or `round(sparsity * units)` at random.

    The random choice depends on the name of the layer, not on that of the variable. So the masks of
    a layer's kernel and bias have the same units.

    Raises:
        Invalid: The sparsity is outside [0, 1), or `indices` is empty, has a negative index or has
            an index twice.

    Example:
        >>> Columns(indices=(0, 3)).masks({"hidden/bias": (5,)}, seed=0)["hidden/bias"].tolist()
        [False, True, True, False, True]
    """

    name: ClassVar[str] = "columns"
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
            layer, of = name.rsplit("/", 1)[0], f"outputs of {name}"
            kept = kept_units(shape[-1], self.sparsity, self.indices, seed=seed, name=layer, of=of)
            masks_by_name[name] = np.broadcast_to(kept, shape).copy()
        return masks_by_name
