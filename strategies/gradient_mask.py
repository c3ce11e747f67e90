"""The `gradient_mask` strategy: mask the gradient before the optimizer gets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.base import Strategy
from masksweep.strategies.binding import Binding
from masksweep.strategies.core.select import select
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class GradientMask(Strategy):
    """Zeroes the gradient of masked entries before the optimizer: `where(m, g, 0)`.

    `g` is the gradient of the weight, and `m` its mask.

    Holds: an optimizer that does not update an entry whose gradients were all zero. These are SGD,
    momentum, Nesterov, Adam, Nadam, RMSprop, Adagrad, Adafactor, Lamb and Lion, with any clipping,
    with L2 regularization (its gradient is masked too) and with EMA (a moving average of the
    weights). Leaks (measured by `experiment=leak_atlas`):

    - from the first step, if the held value is not zero: weight decay and kernel constraints, which
      change the weight without a gradient; Ftrl, which computes the weight again from its slots (if
      the held value is zero, Ftrl may leave -0.0);
    - from the first step, at any held value: Muon, whose update of an entry depends on the others;
    - after a change of the mask: moments of earlier gradients (momentum, Nesterov, Adam, AdamW,
      Nadam, Lamb, Lion), and EMA, whose average contains earlier values.

    Example:
        >>> GradientMask().bind().gradients([0.5, 0.5], [True, False]).numpy()
        array([0.5, 0. ], dtype=float32)
    """

    name: ClassVar[str] = "gradient_mask"
    follows = "all masks"

    def bind(self) -> Binding:
        import tensorflow as tf

        return Binding(
            init=lambda w, m, h: tf.where(m, w, h),
            gradients=lambda g, m: select(m, g, tf.zeros_like(g)),
        )
