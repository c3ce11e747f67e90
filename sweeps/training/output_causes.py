"""Which layers made an output move whose value must not move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from masksweep.strategies.base import Array
from masksweep.strategies.core.audit import alike
from masksweep.strategies.core.moving_statistics import statistics
from masksweep.strategies.core.weights import describe


def output_causes(
    model: Any,
    before: tuple[Mapping[str, Array], Sequence[Array]],
    after: tuple[Mapping[str, Array], Sequence[Array]],
    x: Array,
    held: Sequence[int],
) -> list[str]:
    """What of a model changed so that a held output moved.

    The start is evaluated once for each layer, with nothing but what that layer had at the end.

    Args:
        model: A built Keras model; its values are overwritten.
        before: Trainable weights by name, and non-trainable variables in the model's order, as they
            were at the start of the training.
        after: The same at its end.
        x: Inputs to compare the outputs on.
        held: Indices of the held outputs, on the last axis.

    Returns:
        Such as `["statistics of norm_1", "weights of hidden_2"]`.
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
    start, causes = outputs(weights, state), []
    index = {id(v): i for i, v in enumerate(model.non_trainable_variables)}
    of_layers: dict[str, set[int]] = {}
    for s in statistics(model):
        of_layers.setdefault(s.name.rpartition("/")[0], set()).add(index[id(s.variable)])
    for layer, own in of_layers.items():
        mixed = [
            b if i in own else a for i, (a, b) in enumerate(zip(state, state_after, strict=True))
        ]
        if not alike(outputs(weights, mixed), start):
            causes.append(f"statistics of {layer}")
    for layer in dict.fromkeys(name.rpartition("/")[0] for name in names):
        its = {n: a for n, a in weights_after.items() if n.rpartition("/")[0] == layer}
        if not alike(outputs({**weights, **its}, state), start):
            causes.append(f"weights of {layer}")
    return causes
