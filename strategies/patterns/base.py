"""The base classes of patterns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

from masksweep.strategies.errors import require
from masksweep.strategies.plan import Array, Mask, shapes_and_dtypes

if TYPE_CHECKING:
    from masksweep.strategies.patterns.problem import Problem

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each targeted weight by name, in the model's order."""


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


def checked_indices(indices: Sequence[int] | None) -> tuple[int, ...] | None:
    """Returns indices as a tuple of Python's numbers, which a saved model can have.

    Raises:
        Invalid: An index is negative or is given twice, or there are none. None is allowed.
    """
    if indices is None:
        return None
    shown = list(indices) if isinstance(indices, Collection) else indices
    valid = isinstance(shown, list) and all(isinstance(i, Integral) for i in shown)
    valid = valid and len(indices) > 0 and min(indices) >= 0 and len(set(indices)) == len(indices)
    require(valid, "indices", shown, "units, each once, counted from 0")
    return tuple(int(index) for index in indices)
