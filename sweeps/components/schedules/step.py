"""A learning rate that falls at given steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any, ClassVar, Self

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.schedules.base import Schedule


@register
@dataclass(frozen=True)
class Step(Schedule):
    """The learning rate falls by a factor at given steps.

    It is `keras.optimizers.schedules.PiecewiseConstantDecay`, whose values are the learning rate
    times 1, `factor`, `factor ** 2`, ... As there, step 0 is the first, and the step of a boundary
    is the last one before the change.

    Example:
        >>> [round(rate, 4) for rate in Step(boundaries=(100, 200)).rates(0.1)]
        [0.1, 0.01, 0.001]
    """

    name: ClassVar[str] = "step"
    boundaries: tuple[int, ...] = ()
    """Numbers of steps after which the rate changes, in order."""
    factor: float = 0.1
    """The factor of each change."""

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = self.boundaries
        rising = all(a < b for a, b in pairwise([0, *numbers]))
        allowed = "rising numbers of steps above 0, as [300,600]"
        require(len(numbers) > 0 and rising, "boundaries", list(numbers), allowed)
        require(0 < self.factor < inf, "factor", self.factor, "above 0, and finite")

    def rates(self, learning_rate: float) -> tuple[float, ...]:
        return tuple(learning_rate * self.factor**n for n in range(len(self.boundaries) + 1))

    def for_steps(self, steps: int) -> Self:
        fitting, left = super().for_steps(steps), steps - self.warmup_steps
        allowed = f"below {left}, the training steps after the warm-up"
        require(self.boundaries[-1] < left, "boundaries", list(self.boundaries), allowed)
        return fitting

    def build(self, rates: Sequence[Any]) -> Any:
        import keras

        return keras.optimizers.schedules.PiecewiseConstantDecay(list(self.boundaries), list(rates))
