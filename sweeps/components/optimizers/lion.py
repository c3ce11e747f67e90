"""Lion: the sign of a moving average (Chen et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.registry import register
from masksweep.sweeps.components.optimizers.base import Optimizer


@register
@dataclass(frozen=True)
class Lion(Optimizer):
    """Lion: steps along the sign of a moving average (Chen et al. 2023).

    Reference:
        https://arxiv.org/abs/2302.06675
    """

    name: ClassVar[str] = "lion"
    keras_class: ClassVar[str] = "Lion"
    beta_1: float = 0.9
    beta_2: float = 0.99
