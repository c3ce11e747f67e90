"""The base class of optimizers, which are Keras optimizers with their settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from math import copysign, inf
from typing import Any, ClassVar, Self

from masksweep.strategies.core import keras_internals
from masksweep.strategies.errors import Invalid, require
from masksweep.sweeps.components.schedule_config import schedule_of
from masksweep.sweeps.components.schedules import Schedule

ANY_LENGTH = 2**31 - 1
"""A number of training steps that every schedule fits."""


@dataclass(frozen=True)
class Optimizer:
    """The settings of every Keras optimizer, with the defaults of Keras.

    `keras_class` is the name of the class in `keras.optimizers`. The setting `schedule` is not one
    of Keras; it becomes the learning rate of the Keras optimizer.
    """

    name: ClassVar[str]
    keras_class: ClassVar[str]
    learning_rate: float = 0.001
    weight_decay: float | None = None
    clipnorm: float | None = None
    clipvalue: float | None = None
    global_clipnorm: float | None = None
    use_ema: bool = False
    ema_momentum: float = 0.99
    ema_overwrite_frequency: int | None = None
    schedule: Any = None
    """How the learning rate changes in the training: a name of `SCHEDULES`, or a mapping with the
    name and settings. null means `constant`."""

    def __post_init__(self) -> None:
        schedule = schedule_of(self.schedule)
        own_build = type(self).build is not Optimizer.build
        require(not (schedule and own_build), "schedule", self.schedule, f"null for {self.name}")
        object.__setattr__(self, "schedule", schedule)
        rate, every = self.learning_rate, self.ema_overwrite_frequency
        above = 0 <= rate < inf and copysign(1, rate) > 0
        require(above, "learning_rate", rate, "0 or above, and finite")
        require(every is None or every >= 1, "ema_overwrite_frequency", every, "1 or more, or null")
        for key in ("momentum", "rho"):
            value = getattr(self, key, 0.0)
            require(0 <= value <= 1, key, value, "in [0, 1]")
        for key in ("beta_1", "beta_2", "adam_beta_1", "adam_beta_2"):
            value = getattr(self, key, 0.0)
            require(0 <= value < 1, key, value, "a number in [0, 1)")
        epsilon = getattr(self, "epsilon", 0.0)
        require(epsilon >= 0, "epsilon", epsilon, "0 or above")
        for key in ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm"):
            value = getattr(self, key)
            require(value is None or value >= 0, key, value, "0 or above, or null")
        clips = [k for k in ("clipnorm", "clipvalue", "global_clipnorm") if getattr(self, k)]
        require(len(clips) < 2, clips[0] if clips else "", clips, "one kind of clipping at most")
        require(0 <= self.ema_momentum <= 1, "ema_momentum", self.ema_momentum, "in [0, 1]")

    def build(self, pure: bool = False) -> Any:
        """Builds a new Keras optimizer.

        Args:
            pure: Whether the optimizer must also work within a `keras.StatelessScope`, for several
                trials side by side. The rates of a schedule are variables of the optimizer then,
                so that each trial has its own. Else they are numbers, as in a program that calls
                Keras: TensorFlow computes with them in advance, which can change the last bit.
        """
        import keras

        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        wrap = keras_internals.stateless if pure else keras_internals.without_replicas
        keras_class = wrap(getattr(keras.optimizers, self.keras_class))
        schedule: Schedule | None = settings.pop("schedule")
        if schedule is None:
            return keras_class(**settings)
        from masksweep.sweeps.components import keras_schedules

        rates: Sequence[Any] = self.rates
        if pure:
            rates = keras_schedules.variables(schedule, self.learning_rate)
        settings["learning_rate"] = keras_schedules.make(schedule, rates, pure)
        optimizer = keras_class(**settings)
        if pure:
            for variable in rates:
                keras_internals.track(optimizer, variable)
            optimizer.schedule_rates = tuple(rates)
        return optimizer

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rate, or the rates that its schedule takes."""
        return self.schedule.rates(self.learning_rate) if self.schedule else (self.learning_rate,)

    def for_steps(self, steps: int) -> Self:
        """Returns the optimizer with the schedule for a training of this many steps.

        Raises:
            Invalid: The schedule does not fit a training of this length.
        """
        if self.schedule is None:
            return self
        # where nothing is trained (train.epochs=0), the schedule is not used, and any one fits
        length = steps or ANY_LENGTH
        try:
            return dataclasses.replace(self, schedule=self.schedule.for_steps(length))
        except Invalid as error:
            key = f"optimizer.schedule.{error.key}"
            raise Invalid(key, error.value, error.allowed) from error


def rate_variables(optimizer: Any) -> list[Any]:
    """Returns the variables of a Keras optimizer with the values of `Optimizer.rates`.

    There are none if the rates of a schedule are numbers.

    Args:
        optimizer: What `Optimizer.build` has returned, or a `LossScaleOptimizer` around it.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(inner, "schedule_rates", None) or [inner.learning_rate])


@dataclass(frozen=True)
class Adaptive(Optimizer):
    """The additional settings of Adam and the optimizers derived from it."""

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
