"""The `zero` held value: masked entries are zero, so their connections are removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.held.base import Held
from masksweep.strategies.plan import Array, shapes_and_dtypes
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Zero(Held):
    """Zero: the connection is removed."""

    name: ClassVar[str] = "zero"

    def values(self, initial: Mapping[str, Array]) -> dict[str, Array]:
        return {
            n: np.broadcast_to(np.zeros((), a.dtype), a.shape)
            for n, a in shapes_and_dtypes(initial).items()
        }
