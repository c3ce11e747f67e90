"""LAMB: Adam scaled by each variable's norm (You et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.registry import register
from masksweep.sweeps.components.optimizers.base import Adaptive


@register
@dataclass(frozen=True)
class Lamb(Adaptive):
    """Adam scaled by each variable's norm (You et al. 2020).

    Reference:
        https://arxiv.org/abs/1904.00962
    """

    name: ClassVar[str] = "lamb"
    keras_class: ClassVar[str] = "Lamb"
