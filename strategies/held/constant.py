"""The `constant` held value: one constant for all masked entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.held.base import Held
from masksweep.strategies.plan import Array, shapes_and_dtypes
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Constant(Held):
    """One constant for all masked entries, rounded to the dtype of each weight.

    Raises:
        Invalid: The value is not finite.
    """

    name: ClassVar[str] = "constant"
    value: float = 0.5
    """The constant. It must be finite in the dtype of each weight too."""

    def __post_init__(self) -> None:
        require(bool(np.isfinite(self.value)), "value", self.value, "a finite number")

    def values(self, initial: Mapping[str, Array]) -> dict[str, Array]:
        with np.errstate(over="ignore"):
            scalars = {
                n: np.full((), self.value, a.dtype) for n, a in shapes_and_dtypes(initial).items()
            }
        for a in scalars.values():  # np.finfo has no limits of bfloat16
            require(bool(np.isfinite(a)), "value", self.value, f"a {a.dtype}")
        return {
            n: np.broadcast_to(scalars[n], a.shape) for n, a in shapes_and_dtypes(initial).items()
        }
