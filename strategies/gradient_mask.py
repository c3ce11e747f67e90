"""Mask the gradient between its computation and the optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.base import Binding, Strategy
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class GradientMask(Strategy):
    """Zeroes the gradient of masked entries before the optimizer: `where(m, g, 0)`.

    Holds where an optimizer's update of an entry is zero when all its gradients were: SGD,
    momentum, Nesterov, Adam, Nadam, RMSprop, Adagrad, Adafactor, Lamb, Lion, with any clipping,
    with L2 (its gradient is masked too) and with EMA. Leaks (measured by `experiment=leak_atlas`):

    - from the first step, at a held value that is not zero: weight decay, and kernel constraints,
      which assign past the gradients; Ftrl, which computes the weight anew from its slots (at zero
      it may leave -0.0);
    - from the first step, at any held value: Muon, which looks across entries;
    - after a change of the mask: moments that were built before (momentum, Nesterov, Adam, AdamW,
      Nadam, Lamb, Lion), and EMA, whose average remembers.
    """

    name: ClassVar[str] = "gradient_mask"

    def bind(self) -> Binding:
        import tensorflow as tf

        return Binding(
            init=lambda w, m, h: tf.where(m, w, h),
            gradients=lambda g, m: tf.where(m, g, tf.zeros_like(g)),
        )
