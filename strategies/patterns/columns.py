"""Whole output units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.base import Mask, require
from masksweep.strategies.patterns.base import Pattern, Shapes, check_sparsity, keep_lowest, raw
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Columns(Pattern):
    """Whole output units (last axis): those of `indices`, or `round(sparsity * units)` at random.

    The random choice depends on the layer, not on the variable, so that a layer's kernel and bias
    mask the same units.
    """

    name: ClassVar[str] = "columns"
    sparsity: float = 0.5
    indices: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        given = self.indices
        if given is not None:
            fit = len(given) > 0 and min(given) >= 0 and len(set(given)) == len(given)
            require(fit, "indices", list(given), "output units, each once, counted from 0")

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        made = {}
        for name, shape in shapes.items():
            units = shape[-1]
            if self.indices is None:
                layer = name.rsplit("/", 1)[0]
                kept = keep_lowest(raw(units, seed, layer), units - round(self.sparsity * units))
            else:
                bad = [i for i in self.indices if i >= units]
                require(not bad, "indices", bad, f"below {units}, the outputs of {name}")
                kept = ~np.isin(np.arange(units), self.indices)
            made[name] = np.broadcast_to(kept, shape).copy()
        return made
