"""The `columns` pattern: whole output units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.core.weight_name import layer_of
from masksweep.strategies.patterns.slices import By, Slices
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Columns(Slices):
    """Whole output units (last axis): those of `indices`, or `round(sparsity * units)`.

    They are chosen at random, or are those with the smallest norms before the training. The output
    units of a convolution are its filters.

    The masks of a layer's kernel and bias have the same units: the random choice depends on the
    name of the layer, not on that of the variable, and the norm of a unit is that of all its
    weights in the layer that are targeted.

    Raises:
        Invalid: The sparsity is outside [0, 1), `indices` is empty, has a negative index or has an
            index twice, or `by` is unknown or is given together with `indices`.

    Example:
        >>> Columns(indices=(0, 3)).masks({"hidden/bias": (5,)}, seed=0)["hidden/bias"].tolist()
        [False, True, True, False, True]

    Reference:
        Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv:1608.08710 (`l1`).
    """

    name: ClassVar[str] = "columns"
    sparsity: float = 0.5
    """Fraction of the units that is masked, in [0, 1). Ignored if `indices` is given."""
    indices: Sequence[int] | None = None
    """The units that are masked, counted from 0; None chooses them by `by`."""
    by: By = "random"
    """How the units are chosen: at random, or those with the smallest L1 or L2 norm of their
    weights before the training."""

    def along(self, name: str, shape: tuple[int, ...]) -> int | None:
        return -1 if shape else None

    def description(self, name: str) -> str:
        return f"outputs of {name}"

    def group(self, name: str) -> str:
        return layer_of(name)
