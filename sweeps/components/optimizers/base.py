"""The base class of optimizers, which are Keras optimizers with their settings."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import copysign, inf
from typing import Any, ClassVar

from masksweep.strategies.base import require
from masksweep.strategies.core import keras_internals


@dataclass(frozen=True)
class Optimizer:
    """The settings of every Keras optimizer, with the defaults of Keras.

    `keras_class` is the name of the class in `keras.optimizers`.
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

    def __post_init__(self) -> None:
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
            pure: Whether the optimizer must also work within a `keras.StatelessScope`.
        """
        import keras

        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        keras_class = getattr(keras.optimizers, self.keras_class)
        wrap = keras_internals.stateless if pure else keras_internals.without_replicas
        return wrap(keras_class)(**settings)


@dataclass(frozen=True)
class Adaptive(Optimizer):
    """The additional settings of Adam and the optimizers derived from it."""

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
