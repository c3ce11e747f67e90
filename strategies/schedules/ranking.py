"""Which entries of one weight a schedule drops and grows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.patterns.drawing import keep_lowest, raw
from masksweep.strategies.plan import Array, Mask


def largest(scores: Array, among: Mask, count: int) -> NDArray[np.intp]:
    """Returns the flat positions of the `count` entries with the largest scores.

    Of equal scores, the one with the lower position comes first.

    Args:
        scores: Scores, in any shape.
        among: The entries to choose from, in the same shape.
        count: Number of entries, at most the number of those to choose from.

    Example:
        >>> largest(np.array([3.0, 5.0, 5.0, 9.0]), np.array([True, True, True, False]), 2).tolist()
        [1, 2]
    """
    positions = np.flatnonzero(among)
    negated = -scores.ravel()[positions]
    if count >= positions.size:
        return positions
    if count <= 0:
        return positions[:0]
    threshold = np.partition(negated, count - 1)[count - 1]
    below = negated < threshold
    ties = np.flatnonzero(negated == threshold)
    below[ties[: count - int(below.sum())]] = True
    chosen: NDArray[np.intp] = positions[below]
    return chosen


def keep_largest_of(scores: Array, among: Mask, count: int) -> Mask:
    """Returns the mask of the `count` entries with the largest scores; see `largest`."""
    mask = np.zeros(among.size, bool)
    mask[largest(scores, among, count)] = True
    return mask.reshape(among.shape)


def random_of(among: Mask, count: int, seed: int, name: str) -> Mask:
    """Returns the mask of `count` entries, chosen at random.

    Args:
        among: The entries to choose from.
        count: Number of entries, at most the number of those to choose from.
        seed: Seed of the choice.
        name: Name that the choice depends on.
    """
    positions = np.flatnonzero(among)
    mask = np.zeros(among.size, bool)
    mask[positions[keep_lowest(raw(positions.size, seed, name), count)]] = True
    return mask.reshape(among.shape)
