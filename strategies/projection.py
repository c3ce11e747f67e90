"""Set the masked weights back after every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.base import Binding, Strategy
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Projection(Strategy):
    """Sets the masked entries back after every optimizer step: `v <- where(m, v, h)`.

    Holds the weight after each step in every cell of `experiment=leak_atlas`, also after EMA's
    finalizing, a change of the mask, and under constraints. Does not hold: the optimizer's slots,
    which still see the masked entries' gradients, and so global-norm clipping and optimizers that
    look across entries (LAMB, Adafactor, Muon) walk another path (`experiment=equivalence`).
    """

    name: ClassVar[str] = "projection"

    def bind(self) -> Binding:
        import tensorflow as tf

        return Binding(
            init=lambda w, m, h: tf.where(m, w, h),
            after_step=lambda v, slots, m, h: (tf.where(m, v, h), [s.value for s in slots]),
        )
