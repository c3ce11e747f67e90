"""The `block` pattern: whole blocks of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.base import Pattern, Shapes, check_sparsity
from masksweep.strategies.patterns.drawing import keep_lowest, raw
from masksweep.strategies.patterns.ranking import keep_largest
from masksweep.strategies.patterns.slices import By, check_by, sizes
from masksweep.strategies.plan import Array, Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Block(Pattern):
    """Whole blocks of inputs x outputs; exactly `round(sparsity * blocks)` are masked.

    They are chosen at random, or are those with the smallest norms before the training.

    A kernel is used as a matrix `[inputs, outputs]`: the inputs are all its axes except the last.
    If the number of inputs or outputs is not a multiple of the block's, the last blocks are
    smaller, and so are their norms.

    Raises:
        Invalid: The sparsity is outside [0, 1), a side of the block is below 1, or `by` is unknown.

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

    by: By = "random"
    """How the blocks are chosen: at random, or those with the smallest L1 or L2 norm before the
    training."""

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        require(min(self.block) >= 1, "block", list(self.block), "two numbers of at least 1")
        check_by(self.by)

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        """Returns random blocks.

        With `by` other than `random`, it returns masks of equal norms: their number of masked
        blocks is right.
        """
        if self.by != "random":
            return self.from_weights({n: np.zeros(s) for n, s in shapes.items()}, seed)

        def kept(name: str, grid: tuple[int, int]) -> Mask:
            blocks = grid[0] * grid[1]
            count = blocks - round(self.sparsity * blocks)
            return keep_lowest(raw(blocks, seed, name), count).reshape(grid)

        return {name: self._mask(name, shape, kept) for name, shape in shapes.items()}

    def from_weights(self, weights: Mapping[str, Array], seed: int) -> dict[str, Mask]:
        if self.by == "random":
            return super().from_weights(weights, seed)

        def kept(name: str, grid: tuple[int, int]) -> Mask:
            array = weights[name]
            sums = sizes(array, self.by).reshape(-1, (array.shape or (1,))[-1])
            for axis, (blocks, side) in enumerate(zip(grid, self.block, strict=True)):
                sums = np.add.reduceat(sums, np.arange(blocks) * side, axis=axis)
            return keep_largest({name: sums}, self.sparsity, "weight")[name]

        return {name: self._mask(name, array.shape, kept) for name, array in weights.items()}

    def _mask(
        self, name: str, shape: tuple[int, ...], kept: Callable[[str, tuple[int, int]], Mask]
    ) -> Mask:
        """Returns a mask from a function (name, grid of blocks) -> which blocks are kept."""
        height, width = self.block
        inputs, outputs = int(np.prod(shape[:-1])), (shape or (1,))[-1]
        blocks = kept(name, (-(-inputs // height), -(-outputs // width)))
        mask = blocks.repeat(height, axis=0).repeat(width, axis=1)
        return mask[:inputs, :outputs].reshape(shape)
