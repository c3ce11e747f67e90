"""Finds the layers whose changes made a held output move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from masksweep.strategies.core.audit import same_bits
from masksweep.strategies.core.moving_statistics import statistics
from masksweep.strategies.core.weights import describe
from masksweep.strategies.plan import Array


def output_causes(
    model: Any,
    before: tuple[Mapping[str, Array], Sequence[Array]],
    after: tuple[Mapping[str, Array], Sequence[Array]],
    x: Array,
    held: Sequence[int],
) -> list[str]:
    """The layers whose statistics or weights made a held output move.

    For each layer, the model at its start is evaluated with only this layer's values replaced by
    those at the end of the training.

    Args:
        model: A built Keras model; its values are overwritten.
        before: Trainable weights by name, and non-trainable variables in the model's order, as they
            were at the start of the training.
        after: The same at its end.
        x: Inputs on which the outputs are compared, `[samples, ...]`.
        held: Indices of the held outputs, on the last axis.

    Returns:
        The causes, such as `["statistics of norm_1", "weights of hidden_2"]`.
    """
    names = [w.name for w in describe(model)]

    def outputs(weights: Mapping[str, Array], state: Sequence[Array]) -> Array:
        trainable = zip(model.trainable_variables, (weights[n] for n in names), strict=True)
        for variable, value in [
            *trainable,
            *zip(model.non_trainable_variables, state, strict=True),
        ]:
            variable.assign(value)
        return np.asarray(model(x, training=False))[..., list(held)]

    (weights, state), (weights_after, state_after) = before, after
    initial_outputs, causes = outputs(weights, state), []
    index = {id(v): i for i, v in enumerate(model.non_trainable_variables)}
    by_layer: dict[str, set[int]] = {}
    for statistic in statistics(model):
        by_layer.setdefault(statistic.name.rpartition("/")[0], set()).add(
            index[id(statistic.variable)]
        )
    for layer, indices in by_layer.items():
        mixed = [
            b if i in indices else a
            for i, (a, b) in enumerate(zip(state, state_after, strict=True))
        ]
        if not same_bits(outputs(weights, mixed), initial_outputs):
            causes.append(f"statistics of {layer}")
    for layer in dict.fromkeys(name.rpartition("/")[0] for name in names):
        layer_weights = {n: a for n, a in weights_after.items() if n.rpartition("/")[0] == layer}
        if not same_bits(outputs({**weights, **layer_weights}, state), initial_outputs):
            causes.append(f"weights of {layer}")
    return causes
