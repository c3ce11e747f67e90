"""N kept weights in every group of M inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.base import Mask, require
from masksweep.strategies.patterns.base import Pattern, Shapes, raw
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class NM(Pattern):
    """N kept weights in every group of M consecutive inputs of an output.

    The form that sparse tensor cores take as 2:4 (Mishra et al. 2021, "Accelerating sparse deep
    neural networks"). Inputs are all axes but the last, in order, so that a convolution's groups
    run along its channels.
    """

    name: ClassVar[str] = "n_m"
    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        require(self.m >= 1, "m", self.m, "at least 1")
        require(0 <= self.n <= self.m, "n", self.n, f"a number in 0..m, m is {self.m}")

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        made = {}
        for name, shape in shapes.items():
            inputs, outputs = int(np.prod(shape[:-1])), shape[-1]
            require(
                inputs % self.m == 0, "m", self.m, f"a divisor of the {inputs} inputs of {name}"
            )
            scores = raw(inputs * outputs, seed, name).reshape(inputs // self.m, self.m, outputs)
            rank = np.argsort(np.argsort(scores, axis=1, kind="stable"), axis=1, kind="stable")
            made[name] = (rank < self.n).reshape(shape)
        return made
