"""A learning rate that falls exponentially."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar, Self

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.schedules.base import Schedule


@register
@dataclass(frozen=True)
class Exponential(Schedule):
    """The learning rate falls exponentially: `keras.optimizers.schedules.ExponentialDecay`."""

    name: ClassVar[str] = "exponential"
    decay_steps: int | None = None
    """Number of steps in which the rate falls by the factor `decay_rate`; null means the rest of
    the training."""
    decay_rate: float = 0.1
    """The factor."""
    staircase: bool = False
    """Whether the rate falls at once at the end of each `decay_steps` steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        steps, rate = self.decay_steps, self.decay_rate
        require(steps is None or steps >= 1, "decay_steps", steps, "1 or more, or null")
        require(0 < rate < inf, "decay_rate", rate, "above 0, and finite")

    def for_steps(self, steps: int) -> Self:
        fitting = super().for_steps(steps)
        return replace(fitting, decay_steps=self.decay_steps or steps - self.warmup_steps)

    def build(self, rates: Sequence[Any]) -> Any:
        import keras

        return keras.optimizers.schedules.ExponentialDecay(
            rates[0], self.decay_steps, self.decay_rate, self.staircase
        )
