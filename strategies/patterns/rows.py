"""The `rows` pattern: whole input units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.base import Mask
from masksweep.strategies.patterns.base import Pattern, Shapes, check_sparsity, keep_lowest, raw
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Rows(Pattern):
    """Whole input units (second-last axis) at random; exactly `round(sparsity * units)` are masked.

    A weight with one axis, such as a bias, has no inputs. All its entries are kept.

    Raises:
        Invalid: The sparsity is outside [0, 1).

    Example:
        >>> mask = Rows(0.5).masks({"hidden/kernel": (4, 3)}, seed=0)["hidden/kernel"]
        >>> sorted(mask.sum(axis=1).tolist())
        [0, 0, 3, 3]
    """

    name: ClassVar[str] = "rows"
    sparsity: float = 0.5
    """Fraction of the units that is masked, in [0, 1)."""

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        masks_by_name = {}
        for name, shape in shapes.items():
            if len(shape) < 2:
                masks_by_name[name] = np.ones(shape, bool)
                continue
            units = shape[-2]
            kept = keep_lowest(raw(units, seed, name), units - round(self.sparsity * units))
            masks_by_name[name] = np.broadcast_to(kept[:, None], shape).copy()
        return masks_by_name
