"""What an optimizer keeps about masked entries: its slots, such as moments."""

from __future__ import annotations

from typing import Any

import numpy as np

from masksweep.strategies.base import Array
from masksweep.strategies.core.training import Training


def slots_of(training: Training, value: Any) -> list[tuple[Array, Array]]:
    """(now, fresh) of each optimizer slot of a trained value that has its shape.

    The average that EMA keeps follows the weight itself, so it is left out.
    """
    return [
        (np.asarray(slot.numpy()), fresh)
        for slot, fresh in training.slots.get(id(value), [])
        if not slot.name.endswith("_average")
    ]


def slot_leak(training: Training) -> float:
    """Largest departure of an optimizer slot from its fresh value at a masked entry.

    Slots of another shape than the weight (factored moments, kept values) have none.
    """
    leak = 0.0
    for weight, value in zip(training.weights, training.values, strict=True):
        masked = training.masked.get(weight.name)
        if masked is None or tuple(value.shape) != weight.shape:
            continue
        held = ~masked.kept.numpy()
        for slot, fresh in slots_of(training, value):
            if held.any():
                leak = max(leak, float(np.abs(slot - fresh)[held].max()))
    return leak
