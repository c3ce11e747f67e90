"""RMSprop (Hinton 2012)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.registry import register
from masksweep.sweeps.components.optimizers.base import Optimizer


@register
@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop (Hinton 2012).

    Reference:
        https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf
    """

    name: ClassVar[str] = "rmsprop"
    keras_class: ClassVar[str] = "RMSprop"
    rho: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-7
    centered: bool = False
