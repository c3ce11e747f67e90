"""Mask the gradient between its computation and the optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from strategies.base import Binding, Strategy


@dataclass(frozen=True)
class GradientMask(Strategy):
    """Zeroes the gradient of masked entries before the optimizer: `where(m, g, 0)`.

    Holds under SGD, momentum, Adam and others whose update of an entry is zero when all its
    gradients were. Leaks under whatever moves a weight without its gradient: weight decay,
    Ftrl, Muon, kernel constraints, overwriting EMA; and when the mask changes after moments were
    built.
    """

    name: ClassVar[str] = "gradient_mask"

    def bind(self) -> Binding:
        import tensorflow as tf

        return Binding(
            init=lambda w, m, h: tf.where(m, w, h),
            gradients=lambda g, m: tf.where(m, g, tf.zeros_like(g)),
        )
