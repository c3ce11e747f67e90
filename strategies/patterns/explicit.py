"""Masks written out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.base import Invalid, Mask, require
from masksweep.strategies.patterns.base import Pattern, Shapes
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Explicit(Pattern):
    """Masks written out as nested lists of 0 and 1, by weight name.

    `mask={"hidden/kernel": [[0, 1], [1, 0]]}`; a bare list is for the only targeted weight.
    """

    name: ClassVar[str] = "explicit"
    mask: Any = field(default=None)

    def __post_init__(self) -> None:
        require(self.mask is not None, "mask", None, "nested lists of 0 and 1, by weight name")

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        given = self.mask
        if not isinstance(given, dict):
            names = list(shapes)
            require(
                len(names) == 1,
                "mask",
                "a bare list",
                f"lists by weight name, for {', '.join(names)}",
            )
            given = {names[0]: given}
        unknown = [n for n in given if n not in shapes]
        require(not unknown, "mask", unknown, f"among the targeted weights {', '.join(shapes)}")
        missing = [n for n in shapes if n not in given]
        require(
            not missing, "mask", list(given), f"a mask for each target, also {', '.join(missing)}"
        )
        return {n: to_mask(given[n], shapes[n], f"mask of {n}") for n in shapes}


def to_mask(given: Any, shape: tuple[int, ...], key: str) -> Mask:
    """A boolean mask from numbers 0 and 1. Raises `Invalid` for another shape or other values."""
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise Invalid(key, "ragged lists", f"must be of shape {list(shape)}") from error
    require(array.shape == shape, key, f"shape {list(array.shape)}", f"of shape {list(shape)}")
    if array.dtype == np.bool_:
        return array
    numeric = array.dtype.kind in "buif"
    wrong = array[(array != 0) & (array != 1)] if numeric else array.ravel()
    require(not wrong.size, key, wrong[:3].tolist(), "0 and 1 only")
    return array.astype(bool)
