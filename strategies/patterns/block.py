"""The `block` pattern: whole blocks of weights at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.base import Pattern, Shapes, check_sparsity, keep_lowest, raw
from masksweep.strategies.plan import Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Block(Pattern):
    """Whole blocks of inputs x outputs at random; exactly `round(sparsity * blocks)` are masked.

    A kernel is used as a matrix `[inputs, outputs]`: the inputs are all its axes except the last.
    If the number of inputs or outputs is not a multiple of the block's, the last blocks are
    smaller.

    Raises:
        Invalid: The sparsity is outside [0, 1), or a side of the block is below 1.

    Example:
        >>> Block(0.5, (2, 2)).masks({"a/kernel": (4, 4)}, seed=1)["a/kernel"].astype(int)
        array([[0, 0, 0, 0],
               [0, 0, 0, 0],
               [1, 1, 1, 1],
               [1, 1, 1, 1]])

    Reference:
        Gray et al., GPU Kernels for Block-Sparse Weights, 2017.
    """

    name: ClassVar[str] = "block"
    sparsity: float = 0.9
    """Fraction of the blocks that is masked, in [0, 1)."""
    block: tuple[int, int] = (4, 4)
    """Size of a block: (inputs, outputs)."""

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        require(min(self.block) >= 1, "block", list(self.block), "two numbers of at least 1")

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        height, width = self.block
        masks_by_name = {}
        for name, shape in shapes.items():
            inputs, outputs = int(np.prod(shape[:-1])), shape[-1]
            grid = (-(-inputs // height), -(-outputs // width))
            blocks = grid[0] * grid[1]
            kept = keep_lowest(raw(blocks, seed, name), blocks - round(self.sparsity * blocks))
            flat_mask = kept.reshape(grid).repeat(height, axis=0).repeat(width, axis=1)
            masks_by_name[name] = flat_mask[:inputs, :outputs].reshape(shape)
        return masks_by_name
