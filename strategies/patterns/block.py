"""Whole blocks of weights at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.base import Mask, require
from masksweep.strategies.patterns.base import Pattern, Shapes, check_sparsity, keep_lowest, raw
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Block(Pattern):
    """Whole blocks of inputs x outputs at random; exactly `round(sparsity * blocks)` are masked.

    Inputs are all axes but the last. Where a side is not a multiple of the block's, the last
    blocks are cut off (Gray et al. 2017, "GPU kernels for block-sparse weights").
    """

    name: ClassVar[str] = "block"
    sparsity: float = 0.9
    block: tuple[int, int] = (4, 4)

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        require(min(self.block) >= 1, "block", list(self.block), "two numbers of at least 1")

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        high, wide = self.block
        made = {}
        for name, shape in shapes.items():
            inputs, outputs = int(np.prod(shape[:-1])), shape[-1]
            grid = (-(-inputs // high), -(-outputs // wide))
            blocks = grid[0] * grid[1]
            kept = keep_lowest(raw(blocks, seed, name), blocks - round(self.sparsity * blocks))
            full = kept.reshape(grid).repeat(high, axis=0).repeat(wide, axis=1)
            made[name] = full[:inputs, :outputs].reshape(shape)
        return made
