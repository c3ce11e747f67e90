"""The random numbers of patterns and schedules, and random choices by them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.core.weight_name import stable
from masksweep.strategies.errors import require
from masksweep.strategies.plan import Mask

RAW_PART = 2**20
"""Number of random integers that are in memory at once where not all are needed."""


def kept_units(
    units: int, sparsity: float, indices: Sequence[int] | None, *, seed: int, name: str, of: str
) -> Mask:
    """Returns which units are kept, `[units]`: all but those of `indices`, or a random choice.

    Args:
        units: Number of units.
        sparsity: Fraction of the units that is masked, if `indices` is None.
        indices: The units that are masked, or None.
        seed: Seed of the random choice.
        name: Name that the random choice depends on.
        of: What the units are, for the message, such as `outputs of hidden/kernel`.

    Raises:
        Invalid: An index is not below `units`.
    """
    if indices is None:
        return keep_lowest(raw(units, seed, name), units - round(sparsity * units))
    unknown = [i for i in indices if i >= units]
    require(not unknown, "indices", unknown, f"below {units}, the {of}")
    return ~np.isin(np.arange(units), list(indices))


def raw(size: int, seed: int, name: str) -> NDArray[np.uint64]:
    """Returns random integers that depend only on the seed and the name.

    They are the raw output of NumPy's PCG64 generator. NumPy guarantees the same raw output in all
    versions and on all machines; it does not for `Generator.choice` or `permutation`.

    Args:
        size: Number of integers.
        seed: Seed of the trial.
        name: Name of the weight or layer that the integers are for.

    Returns:
        An array `[size]` of 64-bit unsigned integers.
    """
    return _generator(seed, name).random_raw(size)


def normal(size: int, seed: int, name: str, deviation: float = 1.0) -> NDArray[np.float64]:
    """Returns random numbers `[size]` from a normal distribution with mean 0.

    They are made from the integers of `raw` by the method of Box and Muller, so that a version of
    NumPy cannot change them.

    Args:
        size: Number of random numbers.
        seed: Seed of the trial.
        name: Name of what the numbers are for.
        deviation: Standard deviation of the distribution.
    """
    uniform = (raw(2 * size, seed, name) >> np.uint64(11)) / 2.0**53
    radius = np.sqrt(-2 * np.log1p(-uniform[:size]))
    values: NDArray[np.float64] = deviation * radius * np.cos(2 * np.pi * uniform[size:])
    return values


def _generator(seed: int, name: str) -> np.random.PCG64:
    key = int.from_bytes(hashlib.sha256(f"{seed}/{stable(name)}".encode()).digest()[:16], "little")
    return np.random.PCG64(key)


def keep_lowest_of_raw(size: int, count: int, *, seed: int, name: str) -> Mask:
    """Returns `keep_lowest(raw(size, seed, name), count)`, without all integers in memory at once.

    The integers are made three times, in parts: to count them by their upper bits, to find the
    largest that is kept, and to compare them with it.

    Example:
        >>> mask = keep_lowest_of_raw(50, 5, seed=0, name="hidden/kernel")
        >>> bool((mask == keep_lowest(raw(50, 0, "hidden/kernel"), 5)).all())
        True
    """
    if size <= RAW_PART or not 0 < count < size:
        return keep_lowest(raw(size, seed, name), count)

    def parts() -> Iterator[NDArray[np.uint64]]:
        generator = _generator(seed, name)
        for start in range(0, size, RAW_PART):
            yield generator.random_raw(min(RAW_PART, size - start))

    def upper(part: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (part >> np.uint64(48)).astype(np.int64)

    numbers = np.zeros(2**16, np.int64)
    for part in parts():
        numbers += np.bincount(upper(part), minlength=2**16)
    through = np.cumsum(numbers)  # how many have these upper bits or lower ones
    last = int(np.searchsorted(through, count))
    among = np.concatenate([part[upper(part) == last] for part in parts()])
    rank = count - 1 - int(through[last] - numbers[last])
    threshold = np.partition(among, rank)[rank]
    mask, ties = np.empty(size, bool), []
    for start, part in zip(range(0, size, RAW_PART), parts(), strict=True):
        mask[start : start + len(part)] = part < threshold
        ties.append(start + np.flatnonzero(part == threshold))
    lowest = np.concatenate(ties)[: count - int(np.count_nonzero(mask))]
    mask[lowest] = True
    return mask


def keep_lowest(scores: NDArray[np.uint64], count: int) -> Mask:
    """Returns a mask, of the scores' shape, that keeps exactly the `count` lowest scores.

    Of equal scores, those with the lower index are kept first.

    Example:
        >>> keep_lowest(np.array([7, 5, 5, 9], np.uint64), 2).tolist()
        [False, True, True, False]
    """
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
