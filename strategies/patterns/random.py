"""The `random` pattern: scattered weights at random, with an exact count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.base import Pattern, Shapes, check_sparsity
from masksweep.strategies.patterns.drawing import keep_lowest, keep_lowest_of_raw, raw
from masksweep.strategies.patterns.fans import keep_connected
from masksweep.strategies.plan import Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Random(Pattern):
    """Scattered weights at random, with an exact count.

    `distribution` tells how the sparsity is distributed over the targeted weights:

    - `uniform`: each weight has the same sparsity;
    - `global`: the entries are chosen among those of all weights together, so the sparsity of a
      weight varies by chance;
    - `er` (Erdős-Rényi): the density of a weight is proportional to
      `(inputs + outputs) / (inputs * outputs)` (Mocanu et al. 2018);
    - `erk` (Erdős-Rényi-Kernel): the density of a weight is proportional to
      `sum(shape) / prod(shape)`, over all axes of a kernel (Evci et al. 2020).

    A density above 1 is set to 1, and the others are computed again.

    At a high sparsity some units keep no entry at all: about half of the units at a sparsity of
    0.99, with 64 inputs and 100 units. `min_fan_in` and `min_fan_out` set how many entries each
    unit and each input of a kernel keeps at least. The number of kept entries of the kernel stays
    the same. The fan-in of a convolution counts entries over its window and inputs, its fan-out
    over its window and filters. The limits do not apply to a bias.

    Raises:
        Invalid: The sparsity is outside [0, 1), the distribution is unknown, or a limit is
            negative.

    Example:
        >>> masks = Random(0.98, min_fan_in=1).masks({"hidden/kernel": (64, 100)}, seed=0)
        >>> int(masks["hidden/kernel"].sum()), int(masks["hidden/kernel"].sum(axis=0).min())
        (128, 1)

    Reference:
        Mocanu et al., Scalable Training of Artificial Neural Networks with Adaptive Sparse
        Connectivity Inspired by Network Science, 2018, arXiv:1707.04780.
        Evci et al., Rigging the Lottery, ICML 2020, arXiv:1911.11134.
    """

    name: ClassVar[str] = "random"
    sparsity: float = 0.9
    """Fraction of the entries of all targeted weights together that is masked, in [0, 1)."""
    distribution: Literal["uniform", "global", "er", "erk"] = "uniform"
    """How the sparsity is distributed over the weights: `uniform`, `global`, `er` or `erk`."""
    min_fan_in: int = 0
    """Least number of kept entries of each unit (last axis)."""
    min_fan_out: int = 0
    """Least number of kept entries of each input (second-last axis)."""

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        known = ("uniform", "global", "er", "erk")
        require(self.distribution in known, "distribution", self.distribution, ", ".join(known))
        for key in ("min_fan_in", "min_fan_out"):
            require(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
        if self.distribution == "global":
            counts = _global_counts({n: raw(s, seed, n) for n, s in sizes.items()}, self.sparsity)
        else:
            counts = kept_counts(shapes, self.sparsity, self.distribution)
        masks_by_name = {}
        for name, shape in shapes.items():
            if len(shape) > 1 and (self.min_fan_in or self.min_fan_out):
                scores = raw(sizes[name], seed, name).reshape(shape)
                fans = {"min_fan_in": self.min_fan_in, "min_fan_out": self.min_fan_out}
                masks_by_name[name] = keep_connected(scores, counts[name], name=name, **fans)
            else:
                mask = keep_lowest_of_raw(sizes[name], counts[name], seed=seed, name=name)
                masks_by_name[name] = mask.reshape(shape)
        return masks_by_name


def _global_counts(scores: Mapping[str, NDArray[np.uint64]], sparsity: float) -> dict[str, int]:
    """Returns how many of the lowest scores of all weights together each weight has."""
    all_scores = np.concatenate([s.ravel() for s in scores.values()])
    kept = keep_lowest(all_scores, all_scores.size - round(sparsity * all_scores.size))
    ends = np.cumsum([s.size for s in scores.values()])[:-1]
    return {n: int(part.sum()) for n, part in zip(scores, np.split(kept, ends), strict=True)}


def densities(shapes: Shapes, sparsity: float, distribution: str) -> dict[str, float]:
    """Returns the density of each weight for a sparsity of all weights together.

    Args:
        shapes: Shape of each weight by name.
        sparsity: Fraction of all entries that is masked, in [0, 1).
        distribution: `uniform`, `er` or `erk`; see `Random`.

    Returns:
        Density of each weight by name, in [0, 1].

    Example:
        >>> densities({"a": (784, 300), "b": (300, 100), "c": (100, 10)}, 0.9, "erk")["c"]
        1.0
    """
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    if distribution == "uniform":
        return dict.fromkeys(shapes, 1 - sparsity)
    # er counts units only, so it leaves out the window of a convolution
    axes = {n: s[-2:] if distribution == "er" else s for n, s in shapes.items()}
    share = {name: sum(a) / float(np.prod(a)) for name, a in axes.items()}
    full: set[str] = set()
    while True:
        budget = (1 - sparsity) * sum(sizes.values()) - sum(sizes[n] for n in full)
        unscaled = sum(share[n] * sizes[n] for n in shapes if n not in full)
        scale = budget / unscaled if unscaled else 0.0
        too_dense = {n for n in shapes if n not in full and scale * share[n] > 1}
        if not too_dense:
            return {n: 1.0 if n in full else max(0.0, scale * share[n]) for n in shapes}
        full |= too_dense


def kept_counts(shapes: Shapes, sparsity: float, distribution: str) -> dict[str, int]:
    """Returns the number of kept entries of each weight.

    `uniform` masks exactly `round(sparsity * size)` entries of each weight. `er` and `erk` mask
    exactly `round(sparsity * size)` entries of all weights together: each number is rounded down,
    and the entries that are missing then go to the weights with the largest remainders.

    Args:
        shapes: Shape of each weight by name.
        sparsity: Fraction of all entries that is masked, in [0, 1).
        distribution: `uniform`, `er` or `erk`; see `Random`.
    """
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    if distribution == "uniform":
        return {name: size - round(sparsity * size) for name, size in sizes.items()}
    exact = {n: d * sizes[n] for n, d in densities(shapes, sparsity, distribution).items()}
    counts = {n: int(np.floor(e)) for n, e in exact.items()}
    total = sum(sizes.values())
    missing = total - round(sparsity * total) - sum(counts.values())
    for n in sorted(exact, key=lambda n: counts[n] - exact[n]):
        if missing > 0 and counts[n] < sizes[n]:
            counts[n], missing = counts[n] + 1, missing - 1
    return counts
