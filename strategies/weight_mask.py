"""The `weight_mask` strategy: mask the weight in the forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from masksweep.strategies.base import Strategy
from masksweep.strategies.binding import Binding
from masksweep.strategies.core.select import select
from masksweep.strategies.errors import require
from masksweep.strategies.plan import Plan
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class WeightMask(Strategy):
    """Masks the weight in the forward pass: `where(m, v, h)`, so masked entries get no gradient.

    `v` is the variable that trains, `m` its mask, and `h` the held values.

    Holds: the weight that the model uses, in every cell of `experiment=leak_atlas`. Does not hold:
    the raw variable `v`. Weight decay, L2, Ftrl, Muon and EMA move it at masked entries, but the
    model never uses these entries.

    `form="product"` computes `m * v`, the usual answer to "how do I fix some weights at zero in
    TensorFlow". It is here to show its leak: about half of the zeros become -0.0, and a masked
    entry becomes NaN if the variable is infinite or NaN there.

    Raises:
        Invalid: `form` is neither `where` nor `product`.

    Example:
        >>> import tensorflow as tf
        >>> v, m = tf.constant([1.0, -2.0]), tf.constant([True, False])
        >>> WeightMask().bind().substitute(v, m, 0.0).numpy()
        array([1., 0.], dtype=float32)
        >>> WeightMask(form="product").bind().substitute(v, m, 0.0).numpy()
        array([ 1., -0.], dtype=float32)
    """

    name: ClassVar[str] = "weight_mask"
    follows = "all masks"
    form: Literal["where", "product"] = "where"
    """`where` computes `where(m, v, h)`; `product` computes `m * v`, and holds zero only."""

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
            init=lambda w, m, h: tf.where(m, w, h), substitute=lambda v, m, h: select(m, v, h)
        )
