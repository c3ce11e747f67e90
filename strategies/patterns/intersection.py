"""The `intersection` pattern: what each of several patterns masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.patterns.combined import CombinedList
from masksweep.strategies.plan import Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Intersection(CombinedList):
    """An entry is masked if each of the patterns masks it.

    For example random entries, but only in some of the columns.
    The first part gets the seed, and each other part another one that depends on it.

    Raises:
        Invalid: There is no part, or a part is not a pattern.

    Example:
        >>> parts = {"name": "rows", "indices": (0,)}, {"name": "columns", "indices": (0,)}
        >>> Intersection(parts).masks({"a/kernel": (2, 2)}, seed=0)["a/kernel"].astype(int)
        array([[0, 1],
               [1, 1]])
    """

    name: ClassVar[str] = "intersection"

    def combine(self, masks: list[Mask]) -> Mask:
        mask: Mask = np.logical_or.reduce(masks)
        return mask
