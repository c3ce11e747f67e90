"""Counting a training step's multiply-adds: what a strategy could save at best."""

from __future__ import annotations

from math import prod
from typing import Any

from masksweep.strategies.base import Plan
from masksweep.strategies.core.weights import describe


def step_ratio(model: Any, plan: Plan) -> float:
    """Multiply-adds of a step that skips every masked connection, as a ratio to the dense step.

    A kernel takes part in three products: the outputs, its own gradient and that of its inputs. A
    connection held at zero leaves all three; one held at another value only its own gradient. A
    kernel counts once for each position that it is applied at.
    """
    dense = kept = 0.0
    for weight in describe(model):
        if not weight.is_kernel:
            continue
        layer = model.get_layer(weight.name.split("/")[0])
        positions = prod(layer.output.shape[1:-1])
        size = prod(weight.shape)
        masked = plan.find(weight.name)
        gone = int((~masked.mask).sum()) if masked else 0
        saved = gone * (3 if masked and masked.holds_zero else 1)
        dense += positions * 3 * size
        kept += positions * (3 * size - saved)
    return kept / dense if dense else 1.0
