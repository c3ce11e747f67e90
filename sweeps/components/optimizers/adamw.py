"""Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.registry import register
from masksweep.sweeps.components.optimizers.adam import Adam


@register
@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Reference:
        https://arxiv.org/abs/1711.05101
    """

    name: ClassVar[str] = "adamw"
    keras_class: ClassVar[str] = "AdamW"
    weight_decay: float | None = 0.004
