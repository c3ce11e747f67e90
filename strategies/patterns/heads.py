"""The `heads` pattern: whole attention heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.core.weight_name import WeightName, layer_of, stable
from masksweep.strategies.errors import require
from masksweep.strategies.patterns.base import Shapes
from masksweep.strategies.patterns.slices import By, Slices
from masksweep.strategies.plan import variable_of
from masksweep.strategies.registry import register

INPUT_PARTS = ("query", "key", "value", "gate")
"""Inner layers of an attention layer whose kernels are `[inputs, heads, size]`."""
OUTPUT_PART = "attention_output"
"""The inner layer whose kernel is `[heads, size, outputs]`."""


@register
@dataclass(frozen=True)
class Heads(Slices):
    """Whole attention heads: those of `indices`, or `round(sparsity * heads)` of each layer.

    They are chosen at random, or are those with the smallest norms before the training. The norm
    of a head is that of all its weights that are targeted.

    A head is masked in all targeted weights of its MultiHeadAttention or GroupQueryAttention: in
    the kernels and biases of the queries, keys and values, and in the output kernel. By default
    the kernels are targeted. The output bias has no heads and is kept. In GroupQueryAttention,
    several heads share their keys and values, which are masked if all of these heads are. If the
    output kernel is targeted and held at zero, the model gives the outputs that it gives without
    the masked heads.

    Raises:
        Invalid: The sparsity is outside [0, 1), `indices` is empty, has a negative index or has an
            index twice, `by` is unknown or is given together with `indices`, or a weight is not
            of an attention layer.

    Example:
        >>> shapes = {"attention/query/kernel": (8, 2, 4),
        ...           "attention/attention_output/kernel": (2, 4, 8)}
        >>> masks = Heads(indices=(0,)).masks(shapes, seed=0)
        >>> masks["attention/query/kernel"].sum(axis=(0, 2)).tolist()
        [0, 32]
        >>> masks["attention/attention_output/kernel"].sum(axis=(1, 2)).tolist()
        [0, 32]

    Reference:
        Michel, Levy and Neubig, Are Sixteen Heads Really Better than One?, NeurIPS 2019,
        arXiv:1905.10650.
    """

    name: ClassVar[str] = "heads"
    default_targets: ClassVar[Sequence[str]] = (
        *(f"*/{part}/kernel" for part in ("query", "key", "value")),
        f"*/{OUTPUT_PART}/kernel",
    )
    sparsity: float = 0.5
    """Fraction of the heads of each layer that is masked, in [0, 1). Ignored if `indices` is
    given."""
    indices: Sequence[int] | None = None
    """The heads that are masked, counted from 0; None chooses them by `by`."""
    by: By = "random"
    """How the heads are chosen: at random, or those with the smallest L1 or L2 norm of their
    weights before the training."""

    def along(self, name: str, shape: tuple[int, ...]) -> int | None:
        part, is_bias = name.split("/")[-2:][0], variable_of(name) == "bias"
        if part == OUTPUT_PART and (is_bias or len(shape) >= 3):
            return None if is_bias else 0
        in_attention = part in INPUT_PARTS and len(shape) == (2 if is_bias else 3)
        allowed = 'weights of attention layers only, such as targets=["*/query/kernel"]'
        require(in_attention, "targets", name, allowed)
        return 0 if is_bias else 1

    def units(self, shapes: Shapes) -> dict[str, int]:
        slices = super().units(shapes)
        heads: dict[str, int] = {}
        for name, count in slices.items():
            heads[self.group(name)] = max(count, heads.get(self.group(name), 0))
        for name, count in slices.items():
            allowed = f"heads of which the layer has a multiple; it has {heads[self.group(name)]}"
            require(heads[self.group(name)] % count == 0, name, count, allowed)
        return {name: heads[self.group(name)] for name in slices}

    def description(self, name: str) -> str:
        return f"heads of {self.group(name)}"

    def group(self, name: str) -> str:
        layer, number = layer_of(layer_of(name)), name.partition("#")[2]
        if not number:
            return layer
        # `a/query/kernel#1` is of a second layer with the name `a`
        return WeightName(f"{layer}#{number}", f"{stable(layer)}#{number}")
