"""A generated regression: sums and sums of squares of three inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.drawing import raw
from masksweep.strategies.registry import register
from masksweep.sweeps.components.datasets.arrays import Task
from masksweep.sweeps.components.datasets.base import DataSet
from masksweep.sweeps.components.datasets.named import Split


@register
@dataclass(frozen=True)
class Sums(DataSet):
    """Sums and sums of squares of three inputs, for a network with sigmoids; generated.

    `y0 = x0 + x1 + x2` and `y1 = x0^2 + x1^2 + x2^2` for `x` in [0, 1/3), with uniform noise in
    [-0.01, 0.01). The test samples are the training samples.
    """

    name: ClassVar[str] = "sums"
    task: ClassVar[Task] = "regression"
    standardised: ClassVar[bool] = False
    validation: float = 0.0
    count: int = 8
    """Number of samples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.count >= 1, "count", self.count, "1 or more")

    def samples(self) -> tuple[Split, Split]:
        uniform = (raw(5 * self.count, 0, "sums") / 2.0**64).reshape(-1, 5)
        x, noise = uniform[:, :3] / 3, uniform[:, 3:] * 0.02 - 0.01
        y = np.stack([x.sum(1), (x**2).sum(1)], 1) + noise
        split = x.astype(np.float32), y.astype(np.float32)
        return split, split
