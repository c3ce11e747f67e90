"""Keras' optimizers by name, with their settings as typed fields.

Names, meanings and defaults are those of `keras.optimizers`; they are written out so that a config
is checked before TensorFlow is loaded.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

from masksweep.strategies.base import require


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
        """A fresh Keras optimizer; a `pure` one works under a `keras.StatelessScope` as well.

        On TensorFlow Keras updates through `tf.distribute`, which takes nothing but `tf.Variable`s.
        The pure one updates as Keras does on its other backends, by the same arithmetic.
        """
        import keras

        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        kind = getattr(keras.optimizers, self.keras_class)
        return (_pure(kind) if pure else _local(kind))(**settings)


def _local(kind: type) -> type:
    """The same optimizer, which sums its gradients over no replicas.

    `tf.distribute` does that by a custom gradient, and TensorFlow keeps those for ever: with each
    the graph it is of, and the variables of that.
    """
    return type(kind.__name__, (kind,), {"_all_reduce_sum_gradients": lambda self, pairs: pairs})


def _pure(kind: type) -> type:
    """The same optimizer, with what its base for TensorFlow overrides put back."""
    bases = {c.__name__: c for c in kind.__mro__}
    backend, common = bases["TFOptimizer"], vars(bases["BaseOptimizer"])
    again = {n: common[n] for n in vars(backend) if n in common and not n.startswith("__")}
    # between the optimizer's own methods and those of its base
    return type(kind.__name__, (kind, type("Pure", (backend,), again)), {})


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
class Adaptive(Optimizer):
    """What Adam and its kin take."""

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7


@dataclass(frozen=True)
class Adam(Adaptive):
    """Adam (Kingma and Ba 2015)."""

    name: ClassVar[str] = "adam"
    keras_class: ClassVar[str] = "Adam"
    amsgrad: bool = False


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


@dataclass(frozen=True)
class Nadam(Adaptive):
    """Adam with Nesterov momentum (Dozat 2016)."""

    name: ClassVar[str] = "nadam"
    keras_class: ClassVar[str] = "Nadam"


@dataclass(frozen=True)
class Lamb(Adaptive):
    """Adam scaled by each variable's norm (You et al. 2020)."""

    name: ClassVar[str] = "lamb"
    keras_class: ClassVar[str] = "Lamb"


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011)."""

    name: ClassVar[str] = "adagrad"
    keras_class: ClassVar[str] = "Adagrad"
    initial_accumulator_value: float = 0.1
    epsilon: float = 1e-7


@dataclass(frozen=True)
class Ftrl(Optimizer):
    """Follow the regularized leader (McMahan et al. 2013)."""

    name: ClassVar[str] = "ftrl"
    keras_class: ClassVar[str] = "Ftrl"
    learning_rate_power: float = -0.5
    initial_accumulator_value: float = 0.1
    l1_regularization_strength: float = 0.0
    l2_regularization_strength: float = 0.0
    l2_shrinkage_regularization_strength: float = 0.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        power = self.learning_rate_power
        require(power <= 0, "learning_rate_power", power, "0 or below")
        for key in (
            "initial_accumulator_value",
            "l1_regularization_strength",
            "l2_regularization_strength",
            "l2_shrinkage_regularization_strength",
            "beta",
        ):
            require(getattr(self, key) >= 0, key, getattr(self, key), "0 or above")


@dataclass(frozen=True)
class Lion(Optimizer):
    """The sign of a moving average (Chen et al. 2023)."""

    name: ClassVar[str] = "lion"
    keras_class: ClassVar[str] = "Lion"
    beta_1: float = 0.9
    beta_2: float = 0.99


@dataclass(frozen=True)
class Adafactor(Optimizer):
    """Second moments by rows and columns (Shazeer and Stern 2018)."""

    name: ClassVar[str] = "adafactor"
    keras_class: ClassVar[str] = "Adafactor"
    beta_2_decay: float = -0.8
    epsilon_1: float = 1e-30
    epsilon_2: float = 1e-3
    clip_threshold: float = 1.0
    relative_step: bool = True


@dataclass(frozen=True)
class Muon(Optimizer):
    """Momentum made orthogonal, over the whole matrix (Jordan et al. 2024)."""

    name: ClassVar[str] = "muon"
    keras_class: ClassVar[str] = "Muon"
    weight_decay: float | None = 0.004
    adam_weight_decay: float | None = 0.004
    """Of the weights that are no matrix: those are left to Adam."""
    adam_beta_1: float = 0.9
    adam_beta_2: float = 0.999
    adam_lr_ratio: float = 1
    epsilon: float = 1e-7
    momentum: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5
    rms_rate: float = 0.2


OPTIMIZERS: dict[str, type[Optimizer]] = {
    c.name: c
    for c in (Adafactor, Adagrad, Adam, AdamW, Ftrl, Lamb, Lion, Muon, Nadam, RMSprop, SGD)
}
