"""Whole input units."""

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
    """Whole input units (last axis but one) at random; exactly `round(sparsity * units)` masked.

    A weight of one axis, such as a bias, has no inputs and is kept whole.
    """

    name: ClassVar[str] = "rows"
    sparsity: float = 0.5

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        made = {}
        for name, shape in shapes.items():
            if len(shape) < 2:
                made[name] = np.ones(shape, bool)
                continue
            units = shape[-2]
            kept = keep_lowest(raw(units, seed, name), units - round(self.sparsity * units))
            made[name] = np.broadcast_to(kept[:, None], shape).copy()
        return made
