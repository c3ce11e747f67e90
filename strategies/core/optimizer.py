"""Keras' optimizers, as a training takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from masksweep.strategies.base import Array, Invalid
from masksweep.strategies.core.audit import bits

COPIES_WEIGHTS = (keras.optimizers.ScheduleFreeAdamW,)
"""Optimizers with slots that start as a copy of the weights. `keras.Model.fit` builds an optimizer
within its first step: in a graph the copy is lost, so there is no one training to be equal to."""


def _parts(optimizer: Any) -> list[Any]:
    """The optimizer, the one that it scales the loss for, and those that it hands variables to."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(dict.fromkeys([optimizer, inner, *getattr(inner, "optimizers", [])]))


def require_usable(optimizer: Any) -> None:
    """Raise `Invalid` for an optimizer that was used, or that does not train as under `fit`."""
    for part in _parts(optimizer):
        if part.built:
            allowed = "must be new: it was built for the variables of another training"
            raise Invalid("optimizer", part.name, allowed)
        if isinstance(part, COPIES_WEIGHTS):
            allowed = "starts its slots from the weights, which fit loses in a graph; not supported"
            raise Invalid("optimizer", part.name, allowed)
        if isinstance(part, keras.optimizers.MultiOptimizer) and not part.optimizers:
            allowed = "must have a keras.optimizers.OptimizerMap, not a function of the variable"
            raise Invalid("optimizer", part.name, allowed)


def with_loss_scaling(optimizer: Any, model: Any) -> Any:
    """The optimizer as `keras.Model.compile(auto_scale_loss=True)` takes it."""
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if scales or model.dtype_policy.name != "mixed_float16":
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale_optimizer")


def build(optimizer: Any, variables: Sequence[Any]) -> dict[int, list[tuple[Any, Array]]]:
    """Build the optimizer; (slot, its fresh value) of the variable's shape by `id(variable)`.

    Keras keeps no map from a variable to its slots; it makes each one through
    `add_variable_from_reference`, which is listened to while it builds.
    """
    slots: dict[int, list[tuple[Any, Array]]] = {id(v): [] for v in variables}

    def listening(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(reference_variable: Any, *args: Any, **kwargs: Any) -> Any:
            slot = make(reference_variable, *args, **kwargs)
            found = slots.get(id(reference_variable))
            if found is not None and slot.shape == reference_variable.shape:
                found.append((slot, _least(np.asarray(slot.numpy()))))
            return slot

        return made

    # what is fresh enters the graph as a constant, which XLA keeps for as long as the process lives
    makers = _parts(optimizer)
    for maker in makers:
        maker.add_variable_from_reference = listening(maker.add_variable_from_reference)
    try:
        with keras.name_scope(optimizer.name, caller=optimizer):
            optimizer.build(variables)
    finally:
        for maker in makers:
            del maker.add_variable_from_reference
    return slots


def _least(array: Array) -> Array:
    """The array, as a scalar where all its entries have the same bits."""
    alike = array.size > 0 and bool((bits(array) == bits(array).flat[0]).all())
    return array.reshape(-1)[0].reshape(()) if alike else array
