"""The `n_m` pattern: N kept weights in every group of M inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.base import Pattern, Shapes
from masksweep.strategies.patterns.drawing import raw
from masksweep.strategies.plan import Array, Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class NM(Pattern):
    """N kept weights in every group of M consecutive inputs of an output.

    With `n=2` and `m=4` this is the 2:4 sparsity that NVIDIA's sparse tensor cores need. The inputs
    are all axes except the last, in C order. So the groups of a convolution kernel
    `[*window, channels, filters]` are along its channels. `axis` chooses another axis.

    The kept weights are chosen at random, or are those with the largest magnitudes before the
    training. Of equal magnitudes, the first is kept first.

    Raises:
        Invalid: `m` is below 1, `n` is not in `0 .. m`, `remainder` or `by` is unknown, a weight
            does not have the axis, or `m` does not divide its length and `remainder` is `refuse`.

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
    by: Literal["random", "magnitude"] = "random"
    """How the kept weights are chosen: at random, or those with the largest magnitudes before the
    training."""

    def __post_init__(self) -> None:
        require(self.m >= 1, "m", self.m, "at least 1")
        require(0 <= self.n <= self.m, "n", self.n, f"a number in 0..m, m is {self.m}")
        known = ("refuse", "shorter")
        require(self.remainder in known, "remainder", self.remainder, " or ".join(known))
        require(self.by in ("random", "magnitude"), "by", self.by, "random or magnitude")

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        """Returns random masks.

        With `by="magnitude"`, it returns masks of equal magnitudes: their number of masked entries
        is right.
        """
        if self.by == "magnitude":
            return self.from_weights({n: np.zeros(s) for n, s in shapes.items()}, seed)
        return {
            name: self._mask(name, raw(int(np.prod(shape)), seed, name).reshape(shape))
            for name, shape in shapes.items()
        }

    def from_weights(self, weights: Mapping[str, Array], seed: int) -> dict[str, Mask]:
        if self.by == "random":
            return super().from_weights(weights, seed)
        return {n: self._mask(n, -np.abs(a.astype(np.float64))) for n, a in weights.items()}

    def _mask(self, name: str, scores: Array) -> Mask:
        """Returns a mask, of the scores' shape, that keeps the `n` lowest of each group."""
        if self.axis is None:
            flat = scores.reshape(-1, (scores.shape or (1,))[-1])
            mask = self._lowest(flat, f"inputs of {name}").reshape(scores.shape)
        else:
            allowed = f"an axis of {name}, which has {scores.ndim}"
            require(-scores.ndim <= self.axis < scores.ndim, "axis", self.axis, allowed)
            along = np.moveaxis(scores, self.axis, 0)
            mask = self._lowest(along, f"entries of axis {self.axis} of {name}")
            mask = np.moveaxis(mask, 0, self.axis)
        return np.ascontiguousarray(mask).reshape(scores.shape)  # which makes a scalar a vector

    def _lowest(self, scores: Array, of: str) -> Mask:
        """Returns a mask that keeps the `n` lowest scores of each group of `m` along axis 0."""
        length, *others = scores.shape
        divides = length % self.m == 0 or self.remainder == "shorter"
        require(divides, "m", self.m, f"a divisor of the {length} {of}")
        groups = -(-length // self.m)
        last = np.nan if scores.dtype.kind == "f" else np.iinfo(scores.dtype).max
        padded = np.full((groups * self.m, *others), last, scores.dtype)
        padded[:length] = scores
        padded = padded.reshape(groups, self.m, *others)
        rank = np.argsort(np.argsort(padded, axis=1, kind="stable"), axis=1, kind="stable")
        mask: Mask = (rank < self.n).reshape(-1, *others)[:length]
        return mask
