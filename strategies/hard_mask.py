"""The `hard_mask` strategy: mask the gradient, set the weights back, and reset optimizer slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.base import Strategy
from masksweep.strategies.binding import Binding
from masksweep.strategies.core.select import select
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class HardMask(Strategy):
    """Masks the gradient, sets the weights back after each step, and resets their optimizer slots.

    In each step, with `w` the weight, `m` its mask, `h` the held values and `g` the gradient:

    - before the optimizer, `g <- where(m, g, 0)`;
    - after the optimizer, `w <- where(m, w, h)`, and `slot <- where(m, slot, its initial value)`
      for each slot of the weight's shape.

    It holds the weight in every cell of `experiment=leak_atlas` (a cell is an optimizer setting, a
    held value and an event). Masked entries have no moments that could move them after the mask
    has changed.

    Example:
        >>> binding = HardMask().bind()
        >>> binding.gradients([0.5, 0.5], [True, False]).numpy()
        array([0.5, 0. ], dtype=float32)
    """

    name: ClassVar[str] = "hard_mask"
    follows = "all masks"

    def bind(self) -> Binding:
        import tensorflow as tf

        return Binding(
            init=lambda w, m, h: tf.where(m, w, h),
            gradients=lambda g, m: select(m, g, tf.zeros_like(g)),
            after_step=lambda v, slots, m, h: (
                select(m, v, h),
                [select(m, s.value, s.fresh) for s in slots],
            ),
        )
