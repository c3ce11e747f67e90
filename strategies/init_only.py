"""The `init_only` strategy: set the masked weights once, as a control that must fail the audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from masksweep.strategies.base import Strategy
from masksweep.strategies.binding import Binding
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class InitOnly(Strategy):
    """Sets the masked weights once, then trains as usual: the control that must leak.

    Before the first step, `w <- where(m, w, h)`, with `w` the weight, `m` its mask and `h` the held
    values. After that nothing holds the masked entries: the first step moves each of them that has
    a gradient. The audit must find this; if it finds nothing, the audit does not work.
    """

    name: ClassVar[str] = "init_only"
    follows = "all masks"
    role: ClassVar[Literal["strategy", "control", "dense"]] = "control"

    def bind(self) -> Binding:
        import tensorflow as tf

        return Binding(init=lambda w, m, h: tf.where(m, w, h))
