"""A data set whose samples are written in the config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets.arrays import Task
from masksweep.sweeps.components.datasets.base import DataSet
from masksweep.sweeps.components.datasets.named import Split


@register
@dataclass(frozen=True)
class Explicit(DataSet):
    """Samples from the config, unscaled; the test samples are the training samples. Regression."""

    name: ClassVar[str] = "explicit"
    task: ClassVar[Task] = "regression"
    standardised: ClassVar[bool] = False
    validation: float = 0.0
    x: tuple[tuple[float, ...], ...] = ()
    """Inputs, `[samples, inputs]`."""
    y: tuple[tuple[float, ...], ...] = ()
    """Targets, `[samples, outputs]`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("x", "y"):
            rows = getattr(self, key)
            is_matrix = bool(rows) and bool(rows[0]) and len({len(row) for row in rows}) == 1
            require(is_matrix, key, rows, "rows of numbers, all of one length")
        require(len(self.x) == len(self.y), "y", self.y, "as many rows as x has")

    def samples(self) -> tuple[Split, Split]:
        split = np.asarray(self.x, np.float32), np.asarray(self.y, np.float32)
        return split, split
