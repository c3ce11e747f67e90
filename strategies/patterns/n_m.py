"""The `n_m` pattern: N kept weights in every group of M inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.base import Mask, require
from masksweep.strategies.patterns.base import Pattern, Shapes, raw
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class NM(Pattern):
    """N kept weights in every group of M consecutive inputs of an output.

    With `n=2` and `m=4` this is the 2:4 sparsity that NVIDIA's sparse tensor cores need. The inputs
    are all axes except the last, in C order. So the groups of a convolution kernel
    `[*window, channels, filters]` are along its channels. `axis` chooses another axis.

    Raises:
        Invalid: `m` is below 1, `n` is not in `0 .. m`, `remainder` is unknown, a weight does not
            have the axis, or `m` does not divide its length and `remainder` is `refuse`.

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
    """Inputs in each group."""
    axis: int | None = None
    """The axis along which the groups lie; None takes all axes except the last as one."""
    remainder: Literal["refuse", "shorter"] = "refuse"
    """What happens if `m` does not divide the length of the axis: `refuse`, or `shorter`, with
    which the last group is shorter and keeps `n` weights too, if it has as many."""

    def __post_init__(self) -> None:
        require(self.m >= 1, "m", self.m, "at least 1")
        require(0 <= self.n <= self.m, "n", self.n, f"a number in 0..m, m is {self.m}")
        known = ("refuse", "shorter")
        require(self.remainder in known, "remainder", self.remainder, " or ".join(known))

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        masks_by_name = {}
        for name, shape in shapes.items():
            scores = raw(int(np.prod(shape)), seed, name)
            if self.axis is None:
                mask = self._mask(scores.reshape(-1, shape[-1]), f"inputs of {name}")
            else:
                axes = len(shape)
                allowed = f"an axis of {name}, which has {axes}"
                require(-axes <= self.axis < axes, "axis", self.axis, allowed)
                along = np.moveaxis(scores.reshape(shape), self.axis, 0)
                mask = self._mask(along, f"entries of axis {self.axis} of {name}")
                mask = np.moveaxis(mask, 0, self.axis)
            masks_by_name[name] = np.ascontiguousarray(mask.reshape(shape))
        return masks_by_name

    def _mask(self, scores: NDArray[np.uint64], of: str) -> Mask:
        """Returns a mask that keeps the `n` lowest scores of each group of `m` along axis 0."""
        length, *others = scores.shape
        divides = length % self.m == 0 or self.remainder == "shorter"
        require(divides, "m", self.m, f"a divisor of the {length} {of}")
        groups = -(-length // self.m)
        padded = np.full((groups * self.m, *others), np.iinfo(np.uint64).max, np.uint64)
        padded[:length] = scores
        padded = padded.reshape(groups, self.m, *others)
        rank = np.argsort(np.argsort(padded, axis=1, kind="stable"), axis=1, kind="stable")
        mask: Mask = (rank < self.n).reshape(-1, *others)[:length]
        return mask
