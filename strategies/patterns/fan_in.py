"""The `fan_in` pattern: each unit keeps the same number of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.base import Pattern, Shapes
from masksweep.strategies.patterns.drawing import raw
from masksweep.strategies.plan import Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class FanIn(Pattern):
    """Each unit (last axis) keeps exactly `count` of its inputs, at random (constant fan-in).

    The inputs are all axes except the last; for a convolution, the window and the channels. A
    weight with one axis, such as a bias, is kept whole.

    Raises:
        Invalid: `count` is below 1, or larger than the number of inputs of a weight.

    Example:
        >>> mask = FanIn(2).masks({"hidden/kernel": (8, 3)}, seed=0)["hidden/kernel"]
        >>> mask.sum(axis=0).tolist()
        [2, 2, 2]

    Reference:
        Lasby et al., Dynamic Sparse Training with Structured Sparsity, ICLR 2024, arXiv:2305.02299.
    """

    name: ClassVar[str] = "fan_in"
    count: int = 8
    """Number of inputs that each unit keeps."""

    def __post_init__(self) -> None:
        require(self.count >= 1, "count", self.count, "1 or more")

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        masks_by_name = {}
        for name, shape in shapes.items():
            if len(shape) < 2:
                masks_by_name[name] = np.ones(shape, bool)
                continue
            inputs, units = int(np.prod(shape[:-1])), shape[-1]
            allowed = f"at most {inputs}, the inputs of {name}"
            require(self.count <= inputs, "count", self.count, allowed)
            scores = raw(inputs * units, seed, name).reshape(inputs, units)
            mask = np.zeros((inputs, units), bool)
            lowest = np.argsort(scores, axis=0, kind="stable")[: self.count]
            np.put_along_axis(mask, lowest, True, axis=0)
            masks_by_name[name] = mask.reshape(shape)
        return masks_by_name
