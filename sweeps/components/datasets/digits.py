"""Handwritten digits of 8 x 8 pixels, from scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets.base import DataSet, hold_out
from masksweep.sweeps.components.datasets.named import Split


@register
@dataclass(frozen=True)
class Digits(DataSet):
    """Handwritten digits of 8 x 8 pixels, 64 inputs, 10 classes; shipped with scikit-learn."""

    name: ClassVar[str] = "digits"

    def samples(self) -> tuple[Split, Split]:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return hold_out((x / 16).astype(np.float32), y.astype(np.int32), self.name)
