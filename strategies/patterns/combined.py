"""Combines patterns: the parts that `union`, `intersection` and `complement` have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.patterns import PATTERNS, Pattern, Scored
from masksweep.strategies.patterns.base import Shapes
from masksweep.strategies.patterns.problem import Problem
from masksweep.strategies.plan import Array, Mask


def pattern_of(choice: Any) -> Pattern:
    """Returns a pattern from its settings in a config, or the pattern itself.

    Args:
        choice: A pattern, its name, or a mapping with its `name` and its settings.

    Raises:
        Invalid: There is no such pattern or setting, a setting is not allowed, the settings give
            globs without an order, or the pattern is trained in rounds.

    Example:
        >>> pattern_of({"name": "band", "lower": 0})
        Band(lower=0, upper=1)
    """
    if isinstance(choice, Pattern):
        require(not isinstance(choice, Scored), "of", choice.name, "a pattern without rounds")
        return choice
    settings = {"name": choice} if isinstance(choice, str) else choice
    name = settings.get("name") if isinstance(settings, Mapping) else None
    if not isinstance(name, str) or name not in PATTERNS:
        raise Invalid("of", choice, f"must have the name of a pattern: {', '.join(PATTERNS)}")
    inner = settings.get("of")
    # a trial's identity does not depend on the order of a mapping
    ordered = not isinstance(inner, Mapping) or "name" in inner
    require(ordered, "of", choice, "with pairs [glob, pattern], because the order of globs counts")
    try:
        return pattern_of(
            PATTERNS[name](**{key: v for key, v in settings.items() if key != "name"})
        )
    except TypeError as error:
        raise Invalid("of", choice, f"must have settings of {name}: {error}") from error


class Combined(Pattern):
    """Base class of patterns that consist of other patterns.

    The first part gets the seed, and each other part another one that depends on it, so that their
    random choices are independent.
    """

    def parts(self) -> list[Pattern]:
        """Returns the patterns that are combined."""
        raise NotImplementedError

    def combine(self, masks: list[Mask]) -> Mask:
        """Returns the mask of one weight from those of the parts."""
        raise NotImplementedError

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        parts = enumerate(self.parts())
        return self._combined([part.masks(shapes, _seed(seed, i)) for i, part in parts])

    def from_weights(self, weights: Mapping[str, Array], seed: int) -> dict[str, Mask]:
        parts = enumerate(self.parts())
        return self._combined([part.from_weights(weights, _seed(seed, i)) for i, part in parts])

    @property
    def needs_model(self) -> bool:
        return any(part.needs_model for part in self.parts())

    def from_problem(
        self, problem: Problem, weights: Mapping[str, Array], seed: int
    ) -> dict[str, Mask]:
        parts = enumerate(self.parts())
        return self._combined([p.from_problem(problem, weights, _seed(seed, i)) for i, p in parts])

    def _combined(self, masks: list[dict[str, Mask]]) -> dict[str, Mask]:
        return {name: self.combine([of_part[name] for of_part in masks]) for name in masks[0]}


@dataclass(frozen=True)
class CombinedList(Combined):
    """Base class of patterns that consist of a list of patterns.

    Raises:
        Invalid: There is no part, or a part is not a pattern.
    """

    of: Sequence[Any] = ()
    """The patterns; in a config, their names, or mappings with a name and settings."""

    def __post_init__(self) -> None:
        is_list = isinstance(self.of, list | tuple) and len(self.of) > 0
        require(is_list, "of", self.of, "a list of patterns")
        self.parts()

    def parts(self) -> list[Pattern]:
        return self._parts

    @cached_property
    def _parts(self) -> list[Pattern]:
        return [pattern_of(part) for part in self.of]  # reads the files of the parts


def _seed(seed: int, index: int) -> int:
    """Returns the seed of the part with this index."""
    if index == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/part {index}".encode()).digest()[:8], "little")
