"""The `by_weight` pattern: another pattern for each weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.core.selection import first_matches
from masksweep.strategies.errors import require
from masksweep.strategies.patterns import Pattern
from masksweep.strategies.patterns.base import Shapes
from masksweep.strategies.patterns.combined import pattern_of
from masksweep.strategies.patterns.problem import Problem
from masksweep.strategies.plan import Array, Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class ByWeight(Pattern):
    """Masks each targeted weight by the pattern of the first glob that matches its name.

    A pattern sees all weights that its glob decides on, so that it can share out a sparsity among
    them. A targeted weight that no glob matches stays dense: all its entries are kept.

    Raises:
        Invalid: There is no glob, one has no pattern, or one matches no targeted weight.

    Example:
        >>> from masksweep.strategies.patterns.rows import Rows
        >>> pattern = ByWeight({"a/*": Rows(indices=(0,)), "*/kernel": "band"})
        >>> masks = pattern.masks({"a/kernel": (2, 3), "b/kernel": (3, 3), "b/bias": (3,)}, seed=0)
        >>> {name: int(mask.sum()) for name, mask in masks.items()}
        {'a/kernel': 3, 'b/kernel': 7, 'b/bias': 3}
    """

    name: ClassVar[str] = "by_weight"
    of: Any = None
    """The patterns by glob on weight names, as a mapping or as pairs [glob, pattern]. In a config,
    a pattern is its name, or a mapping with a name and settings."""

    def __post_init__(self) -> None:
        pairs = [*self.of.items()] if isinstance(self.of, Mapping) else self.of
        valid = isinstance(pairs, list | tuple) and len(pairs) > 0 and all(map(_is_pair, pairs))
        require(valid, "of", self.of, "patterns by glob on weight names")
        globs = [glob for glob, _ in pairs]
        require(len({*globs}) == len(globs), "of", globs, "globs, each once")
        # a mapping loses the order of its globs in a trial's identity, and the order decides
        object.__setattr__(self, "of", tuple((glob, choice) for glob, choice in pairs))
        self.parts()

    def parts(self) -> dict[str, Pattern]:
        """Returns the patterns by glob."""
        return self._parts

    @cached_property
    def _parts(self) -> dict[str, Pattern]:
        return {glob: pattern_of(choice) for glob, choice in self.of}  # reads their files

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        return self._masks(
            shapes, lambda part, names: part.masks({n: shapes[n] for n in names}, seed)
        )

    def from_weights(self, weights: Mapping[str, Array], seed: int) -> dict[str, Mask]:
        shapes = {name: array.shape for name, array in weights.items()}
        return self._masks(
            shapes, lambda part, names: part.from_weights({n: weights[n] for n in names}, seed)
        )

    @property
    def needs_model(self) -> bool:
        return any(part.needs_model for part in self.parts().values())

    def from_problem(
        self, problem: Problem, weights: Mapping[str, Array], seed: int
    ) -> dict[str, Mask]:
        shapes = {name: array.shape for name, array in weights.items()}

        def make(part: Pattern, names: Sequence[str]) -> dict[str, Mask]:
            return part.from_problem(problem, {n: weights[n] for n in names}, seed)

        return self._masks(shapes, make)

    def _masks(
        self, shapes: Shapes, make: Callable[[Pattern, Sequence[str]], Mapping[str, Mask]]
    ) -> dict[str, Mask]:
        """Returns the masks from a function (pattern, names of its weights) -> masks by name."""
        parts = self.parts()
        masks = {name: np.ones(shape, bool) for name, shape in shapes.items()}
        for glob, names in first_matches("of", [*shapes], parts).items():
            if names:
                masks |= make(parts[glob], names)
        return masks


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str)
