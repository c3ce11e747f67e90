"""The base class of schedules of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from masksweep.strategies.errors import require


@dataclass(frozen=True)
class Schedule:
    """The base class of schedules of the learning rate, with the warm-up that each may have.

    During the warm-up the learning rate grows linearly from 0. The steps of the schedule count from
    the end of the warm-up.

    A subclass is a frozen dataclass with a `name`. Its settings are simple values or tuples of
    them.
    """

    name: ClassVar[str]
    warmup_steps: int = 0
    """Number of training steps of the warm-up."""

    def __post_init__(self) -> None:
        require(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or above")

    def rates(self, learning_rate: float) -> tuple[float, ...]:
        """Returns the rates that the schedule takes; the first is the one that a warm-up leads to.

        They are values of variables, so that trials with other rates use the same compiled program.

        Args:
            learning_rate: The learning rate of the optimizer.
        """
        return (learning_rate,)

    def for_steps(self, steps: int) -> Self:
        """Returns the schedule for a training of this many steps.

        A schedule replaces the settings that follow from the length of the training.

        Raises:
            Invalid: The schedule does not fit a training of this length. The key is that of the
                setting.
        """
        fits = self.warmup_steps < steps
        require(fits, "warmup_steps", self.warmup_steps, f"below {steps}, the training steps")
        return self

    def build(self, rates: Sequence[Any]) -> Any:
        """Returns the `keras.optimizers.schedules.LearningRateSchedule` without the warm-up.

        Args:
            rates: A Keras variable or a number for each value of `rates`.
        """
        raise NotImplementedError

    def build_with_warm_up(self, rates: Sequence[Any]) -> Any:
        """Returns the Keras schedule with the warm-up, if its class has one; else None.

        Args:
            rates: A number for each value of `rates`.
        """
        return None
