"""Keras learning rate schedules whose rates are variables, and the warm-up before a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from masksweep.sweeps.components.schedules import Schedule


class ConstantRate(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A constant learning rate.

    Args:
        rate: The rate, a number or a Keras variable.
    """

    def __init__(self, rate: Any) -> None:
        self.rate = rate

    def __call__(self, step: Any) -> Any:
        return keras.ops.convert_to_tensor(self.rate)

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate}


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A linear warm-up from 0, and then another schedule, whose steps count from its end.

    Args:
        schedule: The schedule after the warm-up.
        rate: The rate to which the warm-up leads, a number or a Keras variable.
        steps: Number of steps of the warm-up.

    Example:
        >>> warm_up = WarmUp(ConstantRate(0.5), 0.5, 4)
        >>> [float(warm_up(step)) for step in (0, 1, 2, 4, 5)]
        [0.0, 0.125, 0.25, 0.5, 0.5]
    """

    def __init__(self, schedule: Any, rate: Any, steps: int) -> None:
        self.schedule, self.rate, self.steps = schedule, rate, steps

    def __call__(self, step: Any) -> Any:
        rate = keras.ops.convert_to_tensor(self.rate)
        step = keras.ops.cast(step, rate.dtype)
        steps = keras.ops.cast(self.steps, rate.dtype)
        return keras.ops.where(step < steps, rate * (step / steps), self.schedule(step - steps))

    def get_config(self) -> dict[str, Any]:
        return {"schedule": self.schedule, "rate": self.rate, "steps": self.steps}


def make(schedule: Schedule, rates: Sequence[Any], side_by_side: bool = False) -> Any:
    """Returns the Keras schedule, with its warm-up.

    Args:
        schedule: The schedule.
        rates: A number or a Keras variable for each of its rates.
        side_by_side: Whether it must work for several trials side by side.

    Example:
        >>> from masksweep.sweeps.components.schedules.step import Step
        >>> decay = make(Step(boundaries=(2,), warmup_steps=4), [1.0, 0.5])
        >>> [float(decay(step)) for step in (1, 4, 6, 7)]
        [0.25, 1.0, 1.0, 0.5]
    """
    if not schedule.warmup_steps:
        return schedule.build(rates)
    # a warm-up of Keras' own is a condition, which cannot run side by side
    own = None if side_by_side else schedule.build_with_warm_up(rates)
    return own or WarmUp(schedule.build(rates), rates[0], schedule.warmup_steps)


def variables(schedule: Schedule, rate: float) -> list[Any]:
    """Returns a new Keras variable for each rate of a schedule.

    Args:
        schedule: The schedule.
        rate: The learning rate of the optimizer.
    """
    return [
        keras.Variable(value, trainable=False, dtype=keras.config.floatx(), name="learning_rate")
        for value in schedule.rates(rate)
    ]
