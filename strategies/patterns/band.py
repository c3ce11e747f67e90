"""The `band` pattern: diagonal, banded and triangular kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.base import Pattern, Shapes
from masksweep.strategies.plan import Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Band(Pattern):
    """A band around the diagonal is kept: input `i` and output `j` with `-lower <= j - i <= upper`.

    `Band(0, 0)` is diagonal, `Band(0, None)` upper triangular, and `Band(None, 0)` lower
    triangular. Inputs are the second-last axis, and outputs the last one. A weight with one axis,
    such as a bias, is kept whole. The seed is ignored.

    Raises:
        Invalid: `lower` or `upper` is negative.

    Example:
        >>> Band(1, 0).masks({"hidden/kernel": (3, 3)}, seed=0)["hidden/kernel"].astype(int)
        array([[1, 0, 0],
               [1, 1, 0],
               [0, 1, 1]])
    """

    name: ClassVar[str] = "band"
    lower: int | None = 1
    """Number of diagonals below the main one that are kept; None keeps all."""
    upper: int | None = 1
    """Number of diagonals above the main one that are kept; None keeps all."""

    def __post_init__(self) -> None:
        for key in ("lower", "upper"):
            value = getattr(self, key)
            require(value is None or value >= 0, key, value, "0 or more, or null for all")

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        masks_by_name = {}
        for name, shape in shapes.items():
            mask = np.ones(shape, bool)
            if len(shape) > 1:
                offset = np.arange(shape[-1]) - np.arange(shape[-2])[:, None]
                mask &= offset >= -(shape[-2] if self.lower is None else self.lower)
                mask &= offset <= (shape[-1] if self.upper is None else self.upper)
            masks_by_name[name] = mask
        return masks_by_name
