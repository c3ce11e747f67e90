"""A network of one Dense layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.registry import register
from masksweep.sweeps.components.models.base import Init, Model
from masksweep.sweeps.components.models.mlp import MLP


@register
@dataclass(frozen=True)
class Logistic(Model):
    """One Dense layer, `output`."""

    name: ClassVar[str] = "logistic"
    init: Init = "keras"

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        return MLP(hidden=()).network(inputs, outputs)
