"""Scattered weights at random, with an exact count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from masksweep.strategies.base import Mask, require
from masksweep.strategies.patterns.base import Pattern, Shapes, check_sparsity, keep_lowest, raw
from masksweep.strategies.patterns.fans import keep_connected
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Random(Pattern):
    """Scattered weights at random, with an exact count.

    `sparsity` is that of all targeted weights together. `distribution` shares it out:

    - `uniform`: the same for each weight;
    - `er`: density of a weight proportional to `(inputs + outputs) / (inputs * outputs)`
      (Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive sparse
      connectivity");
    - `erk`: the same over all axes of a kernel, `sum(shape) / prod(shape)` (Evci et al. 2020,
      "Rigging the lottery").

    Densities that would pass 1 are set to 1, and the rest is shared out anew.

    At a high sparsity some units keep no entry at all: at 0.99, 64 inputs and 100 units, about half
    of the units. `min_fan_in` and `min_fan_out` keep so many entries of each unit and each input of
    every kernel, of as many kept entries in all. A convolution's fan-in counts over its window and
    its inputs, its fan-out over its window and its filters. The masks of a bias do not change.

    Example:
        >>> masks = Random(0.98, min_fan_in=1).masks({"hidden/kernel": (64, 100)}, seed=0)
        >>> int(masks["hidden/kernel"].sum()), int(masks["hidden/kernel"].sum(axis=0).min())
        (128, 1)
    """

    name: ClassVar[str] = "random"
    sparsity: float = 0.9
    distribution: Literal["uniform", "er", "erk"] = "uniform"
    min_fan_in: int = 0
    """Kept entries of each unit (last axis) at least."""
    min_fan_out: int = 0
    """Kept entries of each input (last axis but one) at least."""

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        known = ("uniform", "er", "erk")
        require(self.distribution in known, "distribution", self.distribution, ", ".join(known))
        for key in ("min_fan_in", "min_fan_out"):
            require(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        counts = kept_counts(shapes, self.sparsity, self.distribution)
        made = {}
        for name, shape in shapes.items():
            scores = raw(int(np.prod(shape)), seed, name).reshape(shape)
            if len(shape) > 1 and (self.min_fan_in or self.min_fan_out):
                fans = {"min_fan_in": self.min_fan_in, "min_fan_out": self.min_fan_out}
                made[name] = keep_connected(scores, counts[name], name=name, **fans)
            else:
                made[name] = keep_lowest(scores, counts[name])
        return made


def densities(shapes: Shapes, sparsity: float, distribution: str) -> dict[str, float]:
    """Density of each weight, in [0, 1], with the given sparsity over all of them."""
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    if distribution == "uniform":
        return dict.fromkeys(shapes, 1 - sparsity)
    # ER counts units, so a convolution's window is left out of it
    axes = {n: s[-2:] if distribution == "er" else s for n, s in shapes.items()}
    share = {name: sum(a) / float(np.prod(a)) for name, a in axes.items()}
    full: set[str] = set()
    while True:
        budget = (1 - sparsity) * sum(sizes.values()) - sum(sizes[n] for n in full)
        rest = sum(share[n] * sizes[n] for n in shapes if n not in full)
        scale = budget / rest if rest else 0.0
        over = {n for n in shapes if n not in full and scale * share[n] > 1}
        if not over:
            return {n: 1.0 if n in full else max(0.0, scale * share[n]) for n in shapes}
        full |= over


def kept_counts(shapes: Shapes, sparsity: float, distribution: str) -> dict[str, int]:
    """Kept entries of each weight; over all of them exactly `round(density * size)`.

    `uniform` rounds each weight by itself. The others round down and hand what is left to the
    largest remainders, in the weights' order.
    """
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    if distribution == "uniform":
        return {name: size - round(sparsity * size) for name, size in sizes.items()}
    exact = {n: d * sizes[n] for n, d in densities(shapes, sparsity, distribution).items()}
    counts = {n: int(np.floor(e)) for n, e in exact.items()}
    total = sum(sizes.values())
    left = total - round(sparsity * total) - sum(counts.values())
    for n in sorted(exact, key=lambda n: counts[n] - exact[n]):
        if left > 0 and counts[n] < sizes[n]:
            counts[n], left = counts[n] + 1, left - 1
    return counts
