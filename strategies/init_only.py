"""Set the masked weights once and hope: the control that must fail the audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from masksweep.strategies.base import Binding, Strategy
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class InitOnly(Strategy):
    """Sets the masked weights once, then trains as usual: the control that must leak.

    `v0 = where(m, w, h)`, and nothing after. The first gradient moves every masked weight whose
    input and delta are not zero. It is here so that an audit which cannot fail is noticed.
    """

    name: ClassVar[str] = "init_only"
    role: ClassVar[Literal["strategy", "control", "dense"]] = "control"

    def bind(self) -> Binding:
        import tensorflow as tf

        return Binding(init=lambda w, m, h: tf.where(m, w, h))
