"""What an optimizer still keeps for entries that were cut, such as their momentum."""

from __future__ import annotations

import numpy as np

from masksweep.strategies.mask_changes.training import MaskedTraining
from masksweep.strategies.schedules.base import Masks


def stale_slots(training: MaskedTraining, before: Masks) -> dict[str, float]:
    """Returns the largest distances of slots from their initial values, over entries that were cut.

    The average of EMA is left out, because it is an average of the weight itself.

    Args:
        training: The training after a change of its masks.
        before: The masks before it.

    Returns:
        Distances above 0 by the kind of slot, as Keras names it: `momentum`, `velocity`.
    """
    largest: dict[str, float] = {}
    for weight, value in zip(training.weights, training.values, strict=True):
        masked = training.masked.get(weight.name)
        if masked is None or not masked.has_weight_order:
            continue
        cut = before[weight.name] & ~masked.kept.numpy()
        for slot, fresh in training.slots.get(id(value), []):
            kind = slot.name.removeprefix(f"{value.path.replace('/', '_')}_")
            if kind == "average":
                continue
            initial = fresh[cut] if np.ndim(fresh) else fresh
            distance = float(np.abs(slot.numpy()[cut] - initial).max(initial=0.0))
            largest[kind] = max(largest.get(kind, 0.0), distance)
    return {kind: distance for kind, distance in largest.items() if distance}
