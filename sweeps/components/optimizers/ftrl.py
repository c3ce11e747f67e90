"""Follow the regularized leader (McMahan et al. 2013)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.optimizers.base import Optimizer


@register
@dataclass(frozen=True)
class Ftrl(Optimizer):
    """Follow the regularized leader (McMahan et al. 2013).

    Reference:
        https://research.google.com/pubs/archive/41159.pdf
    """

    name: ClassVar[str] = "ftrl"
    keras_class: ClassVar[str] = "Ftrl"
    learning_rate_power: float = -0.5
    initial_accumulator_value: float = 0.1
    l1_regularization_strength: float = 0.0
    l2_regularization_strength: float = 0.0
    l2_shrinkage_regularization_strength: float = 0.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        # it computes each weight again, and divides by the learning rate
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0 for ftrl")
        power = self.learning_rate_power
        require(power <= 0, "learning_rate_power", power, "0 or below")
        for key in (
            "initial_accumulator_value",
            "l1_regularization_strength",
            "l2_regularization_strength",
            "l2_shrinkage_regularization_strength",
            "beta",
        ):
            require(getattr(self, key) >= 0, key, getattr(self, key), "0 or above")
