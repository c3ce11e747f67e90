"""Adam (Kingma and Ba 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.registry import register
from masksweep.sweeps.components.optimizers.base import Adaptive


@register
@dataclass(frozen=True)
class Adam(Adaptive):
    """Adam (Kingma and Ba 2015).

    Reference:
        https://arxiv.org/abs/1412.6980
    """

    name: ClassVar[str] = "adam"
    keras_class: ClassVar[str] = "Adam"
    amsgrad: bool = False
