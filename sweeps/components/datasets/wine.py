"""Wines of three growers, from scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets.base import DataSet, hold_out
from masksweep.sweeps.components.datasets.named import Split


@register
@dataclass(frozen=True)
class Wine(DataSet):
    """178 wines, 13 inputs, standardised, 3 classes; shipped with scikit-learn."""

    name: ClassVar[str] = "wine"
    standardised: ClassVar[bool | None] = True

    def samples(self) -> tuple[Split, Split]:
        from sklearn.datasets import load_wine

        x, y = load_wine(return_X_y=True)
        return hold_out(x.astype(np.float32), y.astype(np.int32), self.name)
