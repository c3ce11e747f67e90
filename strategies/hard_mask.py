"""Mask the gradient, set the weights back, and clear the optimizer's slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.base import Binding, Strategy
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class HardMask(Strategy):
    """Masks the gradient, sets the weights back after each step, and keeps their slots fresh.

    What people who were burnt end up with. Holds the weight in every cell of
    `experiment=leak_atlas`, and leaves no moment behind that could move it after the mask has
    changed.
    """

    name: ClassVar[str] = "hard_mask"

    def bind(self) -> Binding:
        import tensorflow as tf

        return Binding(
            init=lambda w, m, h: tf.where(m, w, h),
            gradients=lambda g, m: tf.where(m, g, tf.zeros_like(g)),
            after_step=lambda v, slots, m, h: (
                tf.where(m, v, h),
                [tf.where(m, s.value, s.fresh) for s in slots],
            ),
        )
