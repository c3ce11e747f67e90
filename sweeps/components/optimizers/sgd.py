"""Stochastic gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.optimizers.base import Optimizer


@register
@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if `momentum` is above 0."""

    name: ClassVar[str] = "sgd"
    keras_class: ClassVar[str] = "SGD"
    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        need = not self.nesterov or self.momentum > 0
        require(need, "momentum", self.momentum, "above 0 with nesterov")
