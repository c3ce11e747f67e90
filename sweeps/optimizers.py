"""Keras' optimizers by name, with their settings as typed fields.

Names, meanings and defaults are those of `keras.optimizers`; they are written out so that a config
is checked before TensorFlow is loaded.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

from strategies.base import require


@dataclass(frozen=True)
class Optimizer:
    """What every Keras optimizer takes."""

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
        require(0 < rate < inf, "learning_rate", rate, "above 0, and finite")
        require(every is None or every >= 1, "ema_overwrite_frequency", every, "1 or more, or null")
        for key in ("momentum", "rho"):
            value = getattr(self, key, 0.0)
            require(0 <= value <= 1, key, value, "in [0, 1]")
        epsilon = getattr(self, "epsilon", 0.0)
        require(epsilon >= 0, "epsilon", epsilon, "0 or above")
        for key in ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm"):
            value = getattr(self, key)
            require(value is None or value >= 0, key, value, "0 or above, or null")
        clips = [k for k in ("clipnorm", "clipvalue", "global_clipnorm") if getattr(self, k)]
        require(len(clips) < 2, clips[0] if clips else "", clips, "one kind of clipping at most")
        require(0 <= self.ema_momentum <= 1, "ema_momentum", self.ema_momentum, "in [0, 1]")

    def build(self) -> Any:
        """A fresh Keras optimizer."""
        import keras

        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return getattr(keras.optimizers, self.keras_class)(**settings)


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent, with momentum."""

    name: ClassVar[str] = "sgd"
    keras_class: ClassVar[str] = "SGD"
    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        need = not self.nesterov or self.momentum > 0
        require(need, "momentum", self.momentum, "above 0 with nesterov")


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015)."""

    name: ClassVar[str] = "adam"
    keras_class: ClassVar[str] = "Adam"
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    amsgrad: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("beta_1", "beta_2"):
            require(0 <= getattr(self, key) < 1, key, getattr(self, key), "a number in [0, 1)")


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    name: ClassVar[str] = "adamw"
    keras_class: ClassVar[str] = "AdamW"
    weight_decay: float | None = 0.004


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop (Hinton 2012)."""

    name: ClassVar[str] = "rmsprop"
    keras_class: ClassVar[str] = "RMSprop"
    rho: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-7
    centered: bool = False


OPTIMIZERS: dict[str, type[Optimizer]] = {c.name: c for c in (Adam, AdamW, RMSprop, SGD)}
