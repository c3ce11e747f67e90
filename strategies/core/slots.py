"""Reads the optimizer's slots of masked weights, such as moments."""

from __future__ import annotations

from typing import Any

import numpy as np

from masksweep.strategies.core.keras_internals import is_average
from masksweep.strategies.core.training import Training
from masksweep.strategies.plan import Array


def slots_of(training: Training, value: Any) -> list[tuple[Array, Array]]:
    """Returns the optimizer's slots of a trained variable.

    The slot for EMA is left out, because it is an average of the weight itself.

    Args:
        training: The training.
        value: One of `training.values`.

    Returns:
        Pairs (current value, initial value) of all slots that have the variable's shape.
    """
    return [
        (np.asarray(slot.numpy()), fresh)
        for slot, fresh in training.slots.get(id(value), [])
        if not is_average(slot)
    ]


def slot_leak(training: Training) -> float:
    """Returns the largest distance of a slot from its initial value, over all masked entries.

    Slots that do not have the weight's shape are left out, such as factored moments, and slots of a
    vector of kept values.
    """
    leak = 0.0
    for weight, value in zip(training.weights, training.values, strict=True):
        masked = training.masked.get(weight.name)
        if masked is None or not masked.has_weight_order:
            continue
        held = ~masked.kept.numpy()
        for slot, fresh in slots_of(training, value):
            if held.any():
                leak = max(leak, float(np.abs(slot - fresh)[held].max()))
    return leak
