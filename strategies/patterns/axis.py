"""The `axis` pattern: whole slices along any axis, such as filters or channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.slices import By, Slices
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Axis(Slices):
    """Whole slices along one axis: those of `indices`, or `round(sparsity * length)`.

    They are chosen at random, or are those with the smallest norms before the training.

    In Keras, the last axis (-1) of a convolution kernel has its filters, and the axis before it
    (-2) its channels. Each weight has slices of its own. For attention heads, which must be the
    same in several weights of a layer, use `Heads`.

    Raises:
        Invalid: The sparsity is outside [0, 1), `indices` is empty, has a negative index or has an
            index twice, `by` is unknown or is given together with `indices`, or a weight does not
            have the axis or the index.

    Example:
        >>> channels = Axis(axis=-2, indices=(0,))
        >>> masks = channels.masks({"conv/kernel": (3, 3, 2, 4)}, seed=0)
        >>> masks["conv/kernel"].sum(axis=(0, 1, 3)).tolist()
        [0, 36]

    Reference:
        Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv:1608.08710 (`l1`).
    """

    name: ClassVar[str] = "axis"
    axis: int = -1
    """The axis of the slices; a negative number counts from the last axis."""
    sparsity: float = 0.5
    """Fraction of the slices that is masked, in [0, 1). Ignored if `indices` is given."""
    indices: Sequence[int] | None = None
    """The slices that are masked, counted from 0; None chooses them by `by`."""
    by: By = "random"
    """How the slices are chosen: at random, or those with the smallest L1 or L2 norm before the
    training."""

    def along(self, name: str, shape: tuple[int, ...]) -> int | None:
        axes = len(shape)
        allowed = f"an axis of {name}, which has {axes}"
        require(-axes <= self.axis < axes, "axis", self.axis, allowed)
        return self.axis

    def description(self, name: str) -> str:
        return f"length of axis {self.axis} of {name}"
