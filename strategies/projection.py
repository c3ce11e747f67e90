"""The `projection` strategy: set the masked weights back after every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.base import Strategy
from masksweep.strategies.binding import Binding
from masksweep.strategies.core.select import select
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Projection(Strategy):
    """Sets the masked entries back after every optimizer step: `v <- where(m, v, h)`.

    `v` is the weight, `m` its mask, and `h` the held values.

    Holds: the weight after each step, in every cell of `experiment=leak_atlas`, also with
    constraints, after a change of the mask, and after EMA has replaced the weights by their
    averages. Does not hold: the optimizer's slots, which still get the gradients of masked entries.
    So the kept entries train differently than under `gradient_mask` with clipping by the global
    norm, and with optimizers whose update of an entry depends on other entries (LAMB, Adafactor,
    Muon); see `experiment=equivalence`.
    """

    name: ClassVar[str] = "projection"
    follows = "all masks"

    def bind(self) -> Binding:
        import tensorflow as tf

        return Binding(
            init=lambda w, m, h: tf.where(m, w, h),
            after_step=lambda v, slots, m, h: (select(m, v, h), [s.value for s in slots]),
        )
