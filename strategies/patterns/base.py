"""What a pattern is, and the one source of randomness that all of them share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.base import Array, Mask, require

Shapes = Mapping[str, tuple[int, ...]]
"""The targeted weights' shapes by name, in the model's order."""


class Pattern:
    """Makes the masks (True = kept). Subclasses are frozen dataclasses in a module of their own."""

    name: ClassVar[str]

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        """Boolean masks by name, of the given shapes: the same on every machine.

        Raises `masksweep.strategies.base.Invalid` if a shape cannot take this pattern.
        """
        raise NotImplementedError


class Scored(Pattern):
    """A pattern that goes by what a training under the round before it came to."""

    found_with: Mapping[str, Mapping[str, Any]] | None
    """What the trainings of the rounds before have otherwise than the trial: section, key, value.
    """

    @property
    def before(self) -> Self | None:
        """The pattern of the round before; None for the first, which needs no scores."""
        raise NotImplementedError

    def by_scores(self, scores: Mapping[str, Array]) -> dict[str, Mask]:
        """Masks by name, of the shapes of the scores: the weights after the round before."""
        raise NotImplementedError


def check_sparsity(sparsity: float) -> None:
    require(0 <= sparsity < 1, "sparsity", sparsity, "a number in [0, 1)")
    require(str(sparsity) != "-0.0", "sparsity", sparsity, "0, not -0")


def raw(size: int, seed: int, name: str) -> NDArray[np.uint64]:
    """`size` random 64-bit integers that depend on the seed and the weight's name alone.

    They are the generator's raw stream, which NumPy keeps across versions and machines, unlike
    that of `Generator.choice` or `permutation`.
    """
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "little")
    return np.random.PCG64(key).random_raw(size)


def keep_lowest(scores: NDArray[np.uint64], count: int) -> Mask:
    """A mask of the scores' shape that keeps exactly the `count` lowest; ties go to the first."""
    flat = scores.ravel()
    mask = np.zeros(flat.size, bool)
    if count >= flat.size:
        mask[:] = True
    elif count > 0:
        threshold = np.partition(flat, count - 1)[count - 1]
        mask = flat < threshold
        ties = np.flatnonzero(flat == threshold)
        mask[ties[: count - int(mask.sum())]] = True
    return mask.reshape(scores.shape)
