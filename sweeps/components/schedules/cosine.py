"""A learning rate that falls along a cosine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from masksweep.strategies.errors import require
from masksweep.strategies.registry import register
from masksweep.sweeps.components.schedules.base import Schedule


@register
@dataclass(frozen=True)
class Cosine(Schedule):
    """The learning rate falls along half a cosine wave: `keras.optimizers.schedules.CosineDecay`.

    Reference:
        Loshchilov and Hutter, SGDR, ICLR 2017, https://arxiv.org/abs/1608.03983
    """

    name: ClassVar[str] = "cosine"
    decay_steps: int | None = None
    """Number of steps after which the rate stays at its minimum; null means the rest of the
    training."""
    alpha: float = 0.0
    """The smallest rate, as a fraction of the optimizer's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        steps = self.decay_steps
        require(steps is None or steps >= 1, "decay_steps", steps, "1 or more, or null")
        require(0 <= self.alpha <= 1, "alpha", self.alpha, "in [0, 1]")

    def for_steps(self, steps: int) -> Self:
        fitting = super().for_steps(steps)
        return replace(fitting, decay_steps=self.decay_steps or steps - self.warmup_steps)

    def build(self, rates: Sequence[Any]) -> Any:
        import keras

        return keras.optimizers.schedules.CosineDecay(rates[0], self.decay_steps, self.alpha)

    def build_with_warm_up(self, rates: Sequence[Any]) -> Any:
        import keras

        return keras.optimizers.schedules.CosineDecay(
            0.0,
            self.decay_steps,
            self.alpha,
            warmup_target=rates[0],
            warmup_steps=self.warmup_steps,
        )
