"""The progression of diabetes, a small regression from scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets.arrays import Task
from masksweep.sweeps.components.datasets.base import DataSet, hold_out
from masksweep.sweeps.components.datasets.named import Split


@register
@dataclass(frozen=True)
class Diabetes(DataSet):
    """Progression of diabetes, 10 inputs, one target, standardised; shipped with scikit-learn."""

    name: ClassVar[str] = "diabetes"
    task: ClassVar[Task] = "regression"

    def samples(self) -> tuple[Split, Split]:
        from sklearn.datasets import load_diabetes

        x, y = load_diabetes(return_X_y=True, scaled=False)
        return hold_out(x.astype(np.float32), y.astype(np.float32)[:, None], self.name)
