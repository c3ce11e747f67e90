"""The `rows` pattern: whole input units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.patterns.slices import By, Slices
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Rows(Slices):
    """Whole input units (second-last axis): those of `indices`, or `round(sparsity * units)`.

    They are chosen at random, or are those with the smallest norms before the training. The rows
    of an Embedding are its words. A weight with one axis, such as a bias, has no inputs. All its
    entries are kept.

    Raises:
        Invalid: The sparsity is outside [0, 1), `indices` is empty, has a negative index or has an
            index twice, or `by` is unknown or is given together with `indices`.

    Example:
        >>> Rows(indices=(0, 2)).masks({"words/embeddings": (4, 2)}, seed=0)["words/embeddings"]
        array([[False, False],
               [ True,  True],
               [False, False],
               [ True,  True]])
    """

    name: ClassVar[str] = "rows"
    sparsity: float = 0.5
    """Fraction of the units that is masked, in [0, 1). Ignored if `indices` is given."""
    indices: Sequence[int] | None = None
    """The units that are masked, counted from 0; None chooses them by `by`."""
    by: By = "random"
    """How the units are chosen: at random, or those with the smallest L1 or L2 norm of their
    weights before the training."""

    def along(self, name: str, shape: tuple[int, ...]) -> int | None:
        return -2 if len(shape) > 1 else None

    def description(self, name: str) -> str:
        return f"inputs of {name}"
