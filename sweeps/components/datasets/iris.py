"""Flowers of three kinds of iris, from scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets.base import DataSet, hold_out
from masksweep.sweeps.components.datasets.named import Split


@register
@dataclass(frozen=True)
class Iris(DataSet):
    """150 irises, 4 inputs, standardised, 3 classes; shipped with scikit-learn."""

    name: ClassVar[str] = "iris"
    standardised: ClassVar[bool | None] = True

    def samples(self) -> tuple[Split, Split]:
        from sklearn.datasets import load_iris

        x, y = load_iris(return_X_y=True)
        return hold_out(x.astype(np.float32), y.astype(np.int32), self.name)
