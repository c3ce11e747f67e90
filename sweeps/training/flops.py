"""Counts the multiply-adds of a model: the most that a strategy could save."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import prod
from typing import Any

from masksweep.strategies.core.flops import positions
from masksweep.strategies.core.weights import all_weights, describe
from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Plan


def flops_metrics(model: Any, plan: Plan) -> dict[str, float]:
    """FLOPs of a sample's forward pass, and the share of a training step that masks could save.

    Args:
        model: A built Keras model.
        plan: The masked weights.

    Returns:
        `flops/dense`: the FLOPs of one sample in the forward pass of the dense model. If weights
        are masked, also `flops/masked`, the same without the connections that are held at zero,
        and `flops/step_ratio`. Empty if the products with a weight cannot be counted; for what is
        counted, see `masksweep.strategies.core.flops.positions`.
    """
    counts = _known_positions(model)
    if counts is None:
        return {}
    sizes = {w.name: prod(w.shape) for w in describe(model, all_weights(model))}
    dense = sum(2 * counts[name] * size for name, size in sizes.items())
    if not plan.weights:
        return {"flops/dense": dense}
    skipped = sum(2 * counts[w.weight.name] * w.zeros for w in plan.weights)
    return {
        "flops/dense": dense,
        "flops/masked": dense - skipped,
        "flops/step_ratio": step_ratio(model, plan, counts),
    }


def step_ratio(model: Any, plan: Plan, counts: Mapping[str, int]) -> float:
    """Multiply-adds of a step that skips all masked connections, relative to the dense step.

    A weight takes part in three products: the layer's outputs, the weight's gradient and the
    gradient of the layer's inputs. A connection that is held at zero can be skipped in all three;
    a connection that is held at another value only in the weight's gradient.

    Args:
        model: A built Keras model. Weights of frozen layers are left out.
        plan: The masked weights.
        counts: The positions of each weight in the forward pass, by name.

    Returns:
        A ratio in [0, 1]; 1.0 for a model without kernels.
    """
    masked = {w.weight.name: (int((~w.mask).sum()), w.zeros) for w in plan.weights}
    return _step_ratio(model, masked, counts)


def step_ratio_of_counts(model: Any, masked: Mapping[str, tuple[int, int]]) -> float:
    """As `step_ratio`, from numbers of entries.

    Args:
        model: A built Keras model whose products can be counted.
        masked: By weight name: how many entries are masked, and how many of these are zero.
    """
    counts = _known_positions(model)
    assert counts is not None
    return _step_ratio(model, masked, counts)


def _step_ratio(
    model: Any, masked: Mapping[str, tuple[int, int]], counts: Mapping[str, int]
) -> float:
    dense = sum(3 * counts[w.name] * prod(w.shape) for w in describe(model))
    skipped = sum(counts[name] * (entries + 2 * zeros) for name, (entries, zeros) in masked.items())
    return (dense - skipped) / dense if dense else 1.0


def dense_step_flops(model: Any) -> float:
    """FLOPs of one sample in a training step of the dense model; 0.0 if they cannot be counted.

    They are those of the forward pass, of the weights' gradients and of the inputs' gradients.
    """
    counts = _known_positions(model)
    if counts is None:
        return 0.0
    return float(sum(2 * 3 * counts[w.name] * prod(w.shape) for w in describe(model)))


@lru_cache(maxsize=16)
def _known_positions(model: Any) -> dict[str, int] | None:
    """Positions of all weights; None if they cannot be counted. Trials share models."""
    try:
        counts = positions(model)
    except Invalid:
        return None
    known = {name: count for name, count in counts.items() if count is not None}
    return known if len(known) == len(counts) else None
