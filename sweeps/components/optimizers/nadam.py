"""Adam with Nesterov momentum (Dozat 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.registry import register
from masksweep.sweeps.components.optimizers.base import Adaptive


@register
@dataclass(frozen=True)
class Nadam(Adaptive):
    """Adam with Nesterov momentum (Dozat 2016)."""

    name: ClassVar[str] = "nadam"
    keras_class: ClassVar[str] = "Nadam"
