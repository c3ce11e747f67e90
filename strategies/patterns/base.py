"""The base classes of patterns, and the random numbers that all patterns use."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.core.weight_name import stable
from masksweep.strategies.errors import require
from masksweep.strategies.plan import Array, Mask, shapes_and_dtypes

if TYPE_CHECKING:
    from masksweep.strategies.patterns.problem import Problem

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each targeted weight by name, in the model's order."""
RAW_PART = 2**20
"""Number of random integers that are in memory at once where not all are needed."""


class Pattern:
    """Base class of all patterns: a pattern makes the masks of the targeted weights.

    A subclass is a frozen dataclass with a `name`, in a module of its own. Its fields are its
    settings. `masksweep.strategies.register` makes it known to configs by its name.

    Example:
        >>> from masksweep.strategies.patterns.columns import Columns
        >>> Columns(indices=(1,)).masks({"hidden/kernel": (2, 3)}, seed=0)
        {'hidden/kernel': array([[ True, False,  True],
               [ True, False,  True]])}
    """

    name: ClassVar[str]
    """The name in configs: lower-case letters, digits and underscores."""
    default_targets: ClassVar[Sequence[str] | None] = None
    """Globs on the weights that are masked if no targets are given. None: see `target_names`."""

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        """Returns the masks: True = kept (trains), False = masked (held).

        The same arguments give the same masks on every machine.

        Args:
            shapes: Shape of each targeted weight by name.
            seed: Seed of the random choice; a pattern without one ignores it.

        Returns:
            Boolean masks by name, in the order and with the shapes of `shapes`.

        Raises:
            Invalid: The pattern cannot be used for one of the shapes.
        """
        raise NotImplementedError

    def from_weights(self, weights: Mapping[str, Array], seed: int) -> dict[str, Mask]:
        """Returns the masks of weights whose values are known, such as initial or trained weights.

        A pattern that looks at values overrides this. Its `masks` then has as many masked entries,
        and serves to check a plan without values.

        Args:
            weights: The targeted weights by name.
            seed: Seed of the random choice; a pattern without one ignores it.

        Returns:
            Boolean masks by name, in the order and with the shapes of `weights`.

        Raises:
            Invalid: The pattern cannot be used for one of the weights.
        """
        arrays = shapes_and_dtypes(weights)
        return self.masks({name: array.shape for name, array in arrays.items()}, seed)

    @property
    def needs_model(self) -> bool:
        """Whether the masks depend on more than the targeted weights: on the model or its data.

        If so, `from_problem` makes the masks, and `from_weights` is not used.
        """
        return False

    def from_problem(
        self, problem: Problem, weights: Mapping[str, Array], seed: int
    ) -> dict[str, Mask]:
        """Returns the masks of weights whose model, data and loss are known.

        A pattern that needs the model overrides this. Its `masks` then has as many masked entries
        in all, and serves to check a plan without data.

        Args:
            problem: The model with its data and its loss.
            weights: The targeted weights by name.
            seed: Seed of the random choice; a pattern without one ignores it.

        Returns:
            Boolean masks by name, in the order and with the shapes of `weights`.

        Raises:
            Invalid: The pattern cannot be used for one of the weights, or there are no data.
        """
        return self.from_weights(weights, seed)


class Scored(Pattern):
    """Base class of patterns that mask by the trained weights of an earlier round.

    Such a pattern is one of several rounds. The model is trained with the masks of a round, and the
    trained weights are the scores that give the masks of the next round.
    """

    found_with: Mapping[str, Mapping[str, Any]] | None
    """Settings of the earlier rounds that differ from those of the trial: section, key, value. For
    example `{"train": {"steps": 100}}`."""

    @property
    def before(self) -> Self | None:
        """The pattern of the previous round; None for the first round, which needs no scores."""
        raise NotImplementedError

    def by_scores(self, scores: Mapping[str, Array]) -> dict[str, Mask]:
        """Returns the masks of this round.

        Args:
            scores: The weights by name, as they were after the training of the previous round.

        Returns:
            Boolean masks by name (True = kept), in the order and with the shapes of the scores.
        """
        raise NotImplementedError


def check_sparsity(sparsity: float) -> None:
    """Raises `Invalid` unless the sparsity is a number in [0, 1) and not -0.0."""
    is_number = isinstance(sparsity, Real) and not isinstance(sparsity, bool)
    shown = sparsity if is_number else repr(sparsity)
    require(is_number and 0 <= sparsity < 1, "sparsity", shown, "a number in [0, 1)")
    require(str(sparsity) != "-0.0", "sparsity", sparsity, "0, not -0")


def check_indices(indices: Sequence[int] | None) -> None:
    """Raises `Invalid` unless the indices are None, or each is given once and is not negative."""
    if indices is None:
        return
    shown = list(indices) if isinstance(indices, Collection) else indices
    valid = isinstance(shown, list) and all(isinstance(i, Integral) for i in shown)
    valid = valid and len(indices) > 0 and min(indices) >= 0 and len(set(indices)) == len(indices)
    require(valid, "indices", shown, "units, each once, counted from 0")


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
