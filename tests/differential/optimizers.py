"""All Keras optimizers, and the options with which each of them is compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import optimizers
from keras.optimizers import schedules

Make = Callable[..., Any]

OPTIMIZERS: dict[str, Make] = {
    "Adadelta": optimizers.Adadelta,
    "Adafactor": optimizers.Adafactor,
    "Adagrad": optimizers.Adagrad,
    "Adam": optimizers.Adam,
    "Adam, amsgrad": lambda **options: optimizers.Adam(amsgrad=True, **options),
    "AdamW": optimizers.AdamW,
    "Adamax": optimizers.Adamax,
    "Ftrl": optimizers.Ftrl,
    "Lamb": optimizers.Lamb,
    "Lion": optimizers.Lion,
    "Muon": optimizers.Muon,
    "Muon, excluding": lambda **options: optimizers.Muon(exclude_layers=["head"], **options),
    "Nadam": optimizers.Nadam,
    "RMSprop": optimizers.RMSprop,
    "RMSprop, centered": lambda **options: optimizers.RMSprop(
        centered=True, momentum=0.5, **options
    ),
    "SGD": optimizers.SGD,
    "SGD, momentum": lambda **options: optimizers.SGD(momentum=0.9, **options),
    "SGD, Nesterov": lambda **options: optimizers.SGD(momentum=0.9, nesterov=True, **options),
}
"""Functions that make an optimizer from keyword arguments, by name."""
WRAPPERS: dict[str, Callable[[Make, dict[str, Any]], Any]] = {
    "LossScaleOptimizer": lambda make, options: optimizers.LossScaleOptimizer(make(**options)),
    "MultiOptimizer": lambda make, options: optimizers.MultiOptimizer(
        optimizers.OptimizerMap(make(**options), {".*head.*": optimizers.SGD(0.1)})
    ),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "weight decay": {"weight_decay": 0.1},
    "EMA": {"use_ema": True, "ema_momentum": 0.7},
    "EMA, overwriting": {"use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": 2},
    "clipnorm": {"clipnorm": 0.01},
    "clipvalue": {"clipvalue": 0.01},
    "global_clipnorm": {"global_clipnorm": 0.01},
    "accumulation": {"gradient_accumulation_steps": 2},
    "loss scale": {"loss_scale_factor": 256.0},
    "cosine": {"learning_rate": schedules.CosineDecay(0.01, 5)},
    "exponential": {"learning_rate": schedules.ExponentialDecay(0.01, 2, 0.5, staircase=True)},
    "excluding variables": {"weight_decay": 0.5},
    "excluding names": {"weight_decay": 0.5},
}


def make(name: str, option: str, model: Any, wrapper: str = "") -> Any:
    """Returns a new optimizer.

    Args:
        name: A key of `OPTIMIZERS`.
        option: A key of `OPTIONS`.
        model: The model whose variables some options exclude from weight decay.
        wrapper: A key of `WRAPPERS`, or empty.
    """
    options = {"learning_rate": 0.01, **OPTIONS[option]}

    def make_optimizer(**options: Any) -> Any:
        optimizer = OPTIMIZERS[name](**options)
        if option == "excluding variables":
            optimizer.exclude_from_weight_decay(var_list=model.trainable_variables[::2])
        elif option == "excluding names":
            optimizer.exclude_from_weight_decay(var_names=["bias", "beta"])
        return optimizer

    return WRAPPERS[wrapper](make_optimizer, options) if wrapper else make_optimizer(**options)
