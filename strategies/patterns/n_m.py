"""The `n_m` pattern: N kept weights in every group of M inputs."""

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

    With `n=2` and `m=4` this is the 2:4 sparsity that NVIDIA's sparse tensor cores need. The inputs
    are all axes except the last, in C order. So the groups of a convolution kernel
    `[*window, channels, filters]` are along its channels.

    Raises:
        Invalid: `m` is below 1, or `n` is not in `0 .. m`.

    Example:
        >>> mask = NM(1, 2).masks({"hidden/kernel": (4, 3)}, seed=0)["hidden/kernel"]
        >>> mask.reshape(2, 2, 3).sum(axis=1).tolist()
        [[1, 1, 1], [1, 1, 1]]

    Reference:
        Mishra et al., Accelerating Sparse Deep Neural Networks, 2021, arXiv:2104.08378.
    """

    name: ClassVar[str] = "n_m"
    n: int = 2
    """Kept weights in each group."""
    m: int = 4
    """Inputs in each group; must divide the number of inputs."""

    def __post_init__(self) -> None:
        require(self.m >= 1, "m", self.m, "at least 1")
        require(0 <= self.n <= self.m, "n", self.n, f"a number in 0..m, m is {self.m}")

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        masks_by_name = {}
        for name, shape in shapes.items():
            inputs, outputs = int(np.prod(shape[:-1])), shape[-1]
            require(
                inputs % self.m == 0, "m", self.m, f"a divisor of the {inputs} inputs of {name}"
            )
            scores = raw(inputs * outputs, seed, name).reshape(inputs // self.m, self.m, outputs)
            rank = np.argsort(np.argsort(scores, axis=1, kind="stable"), axis=1, kind="stable")
            masks_by_name[name] = (rank < self.n).reshape(shape)
        return masks_by_name
