"""Mask the weight in the forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from masksweep.strategies.base import Binding, Plan, Strategy, require
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class WeightMask(Strategy):
    """Masks the weight in the forward pass: `where(m, v, h)`, so masked entries get no gradient.

    Holds: the weight that the model uses, in every cell of `experiment=leak_atlas`. Does not hold:
    the raw variable behind it, which decay, L2, Ftrl, Muon and EMA move at masked entries without
    effect.

    `form="product"` is the literal `m * v` that people write first (the usual answer to "how do I
    fix some weights at zero in TensorFlow"). It is kept as a documented leak: it turns half of the
    zeros into -0.0, and an infinite or NaN variable behind a masked entry into NaN.
    """

    name: ClassVar[str] = "weight_mask"
    form: Literal["where", "product"] = "where"

    def __post_init__(self) -> None:
        require(self.form in ("where", "product"), "form", self.form, "where or product")

    def refuses(self, plan: Plan) -> str | None:
        if self.form == "product" and not all(w.holds_zero for w in plan.weights):
            return "the product form multiplies by the mask: it can hold zero only"
        return None

    def bind(self) -> Binding:
        import tensorflow as tf

        if self.form == "product":
            return Binding(substitute=lambda v, m, h: v * tf.cast(m, v.dtype))
        return Binding(
            init=lambda w, m, h: tf.where(m, w, h), substitute=lambda v, m, h: tf.where(m, v, h)
        )
