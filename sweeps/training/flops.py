"""Counts the multiply-adds of a training step: the most that a strategy could save."""

from __future__ import annotations

from math import prod
from typing import Any

from masksweep.strategies.base import Plan
from masksweep.strategies.core.weights import describe


def step_ratio(model: Any, plan: Plan) -> float:
    """Multiply-adds of a step that skips all masked connections, relative to the dense step.

    A kernel takes part in three products: the layer's outputs, the kernel's gradient and the
    gradient of the layer's inputs. A connection that is held at zero can be skipped in all three;
    a connection that is held at another value only in the kernel's gradient. A kernel counts once
    for each position at which the layer applies it, such as each place of a convolution's window.

    Args:
        model: A built Keras model.
        plan: The masked weights.

    Returns:
        A ratio in [0, 1]; 1.0 for a model without kernels.
    """
    dense = remaining = 0.0
    for weight in describe(model):
        if not weight.is_kernel:
            continue
        layer = model.get_layer(weight.name.split("/")[0])
        positions = prod(layer.output.shape[1:-1])
        size = prod(weight.shape)
        masked = plan.find(weight.name)
        masked_entries = int((~masked.mask).sum()) if masked else 0
        skipped = masked_entries * (3 if masked and masked.holds_zero else 1)
        dense += positions * 3 * size
        remaining += positions * (3 * size - skipped)
    return remaining / dense if dense else 1.0
