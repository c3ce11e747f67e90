"""Muon: orthogonalized momentum (Jordan et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.registry import register
from masksweep.sweeps.components.optimizers.base import Optimizer


@register
@dataclass(frozen=True)
class Muon(Optimizer):
    """Muon: momentum, orthogonalized over the whole matrix (Jordan et al. 2024).

    Reference:
        https://kellerjordan.github.io/posts/muon/
    """

    name: ClassVar[str] = "muon"
    keras_class: ClassVar[str] = "Muon"
    weight_decay: float | None = 0.004
    adam_weight_decay: float | None = 0.004
    """Weight decay of the weights that Adam updates, because they are not matrices."""
    adam_beta_1: float = 0.9
    adam_beta_2: float = 0.999
    adam_lr_ratio: float = 1
    epsilon: float = 1e-7
    momentum: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5
    rms_rate: float = 0.2
