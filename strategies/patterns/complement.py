"""The `complement` pattern: what another pattern keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.errors import require
from masksweep.strategies.patterns import Pattern
from masksweep.strategies.patterns.combined import Combined, pattern_of
from masksweep.strategies.plan import Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Complement(Combined):
    """An entry is masked if the pattern keeps it, and kept if the pattern masks it.

    Raises:
        Invalid: `of` is not a pattern.

    Example:
        >>> masks = Complement({"name": "columns", "indices": (0,)}).masks({"a/kernel": (1, 3)}, 0)
        >>> masks["a/kernel"].astype(int)
        array([[1, 0, 0]])
    """

    name: ClassVar[str] = "complement"
    of: Any = None
    """The pattern; in a config, its name, or a mapping with a name and settings."""

    def __post_init__(self) -> None:
        require(self.of is not None, "of", self.of, "a pattern")
        self.parts()

    def parts(self) -> list[Pattern]:
        return [pattern_of(self.of)]

    def combine(self, masks: list[Mask]) -> Mask:
        return ~masks[0]
