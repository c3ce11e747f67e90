"""The `union` pattern: what at least one of several patterns masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.patterns.combined import CombinedList
from masksweep.strategies.plan import Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Union(CombinedList):
    """An entry is masked if at least one of the patterns masks it.

    For example a random pattern together with a band.
    The first part gets the seed, and each other part another one that depends on it.

    Raises:
        Invalid: There is no part, or a part is not a pattern.

    Example:
        >>> parts = {"name": "rows", "indices": (0,)}, {"name": "columns", "indices": (0,)}
        >>> Union(parts).masks({"a/kernel": (2, 2)}, seed=0)["a/kernel"].astype(int)
        array([[0, 0],
               [0, 1]])
    """

    name: ClassVar[str] = "union"

    def combine(self, masks: list[Mask]) -> Mask:
        mask: Mask = np.logical_and.reduce(masks)
        return mask
