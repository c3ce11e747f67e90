"""Adagrad (Duchi et al. 2011)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.registry import register
from masksweep.sweeps.components.optimizers.base import Optimizer


@register
@dataclass(frozen=True)
class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011).

    Reference:
        https://jmlr.org/papers/v12/duchi11a.html
    """

    name: ClassVar[str] = "adagrad"
    keras_class: ClassVar[str] = "Adagrad"
    initial_accumulator_value: float = 0.1
    epsilon: float = 1e-7
