"""Adafactor (Shazeer and Stern 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.registry import register
from masksweep.sweeps.components.optimizers.base import Optimizer


@register
@dataclass(frozen=True)
class Adafactor(Optimizer):
    """Adafactor: second moments by rows and columns (Shazeer and Stern 2018).

    Reference:
        https://arxiv.org/abs/1804.04235
    """

    name: ClassVar[str] = "adafactor"
    keras_class: ClassVar[str] = "Adafactor"
    beta_2_decay: float = -0.8
    epsilon_1: float = 1e-30
    epsilon_2: float = 1e-3
    clip_threshold: float = 1.0
    relative_step: bool = True
