"""The `dense` strategy: no mask, as a control for accuracy and speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from masksweep.strategies.base import Strategy
from masksweep.strategies.binding import Binding
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Dense(Strategy):
    """Holds nothing: the control for accuracy and speed.

    Its training step computes what `keras.Model.fit` computes, bit for bit.
    """

    name: ClassVar[str] = "dense"
    role: ClassVar[Literal["strategy", "control", "dense"]] = "dense"

    def bind(self) -> Binding:
        return Binding()
