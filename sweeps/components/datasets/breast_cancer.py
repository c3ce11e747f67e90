"""Breast cancer in Wisconsin, a diagnosis of two classes, from scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets.base import DataSet, hold_out
from masksweep.sweeps.components.datasets.named import Split


@register
@dataclass(frozen=True)
class BreastCancer(DataSet):
    """569 tumours, 30 inputs, standardised, 2 classes; shipped with scikit-learn."""

    name: ClassVar[str] = "breast_cancer"
    standardised: ClassVar[bool | None] = True

    def samples(self) -> tuple[Split, Split]:
        from sklearn.datasets import load_breast_cancer

        x, y = load_breast_cancer(return_X_y=True)
        return hold_out(x.astype(np.float32), y.astype(np.int32), self.name)
