"""The non-trainable weights of a model, such as the moving statistics of BatchNormalization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from masksweep.strategies.core.selection import match, match_each
from masksweep.strategies.core.weights import owners


@dataclass(frozen=True)
class Statistic:
    """A non-trainable weight, which its layer may update in the forward pass."""

    name: str
    """`layer/variable`, in the same form as the names of trainable weights."""
    variable: Any
    layer: Any


def statistics(model: Any) -> list[Statistic]:
    """Returns the non-trainable weights of a built Keras model, in the order of its layers.

    As in `keras.Model.non_trainable_weights`, the states of random seeds and metrics are left out,
    and the weights of layers with `trainable = False` are included.
    """
    wanted = {id(v): v for v in model.non_trainable_weights}
    return [
        Statistic(name, wanted[key], layer)
        for key, (name, layer) in owners(model).items()
        if key in wanted
    ]


def frozen_statistics(
    model: Any, trainable: Sequence[str], updated: Sequence[str] | None
) -> list[Statistic]:
    """Returns the statistics that must not change.

    Args:
        model: A built Keras model.
        trainable: Globs on the names of the weights that train.
        updated: Globs on the names of the statistics that are updated. With None, a statistic is
            frozen if its layer does not train, as with `layer.trainable = False`: no glob of
            `trainable` matches the statistic or a weight of its layer. No statistic is frozen if
            all weights of the model train.

    Returns:
        The frozen statistics, in the order of the layers.

    Raises:
        Invalid: A glob of `updated` matches no statistic.
    """
    all_statistics = statistics(model)
    names = [s.name for s in all_statistics]
    if updated is not None:
        updated_names = match_each("statistics", names, updated)
        return [s for s in all_statistics if s.name not in updated_names]
    updated_names = match(names, trainable)
    weights = {id(v) for v in model.trainable_variables}
    owned = {name: layer for key, (name, layer) in owners(model).items() if key in weights}
    training = match(list(owned), trainable)
    if len(training) == len(owned):
        return []
    trains = {id(owned[name]) for name in training}
    return [s for s in all_statistics if s.name not in updated_names and id(s.layer) not in trains]


def layers_with_frozen_statistics(model: Any, frozen: Sequence[Statistic]) -> list[Any]:
    """Returns the layers whose statistics are all frozen, without the model itself.

    They must compute as with `layer.trainable = False`: BatchNormalization then normalizes by its
    moving statistics in training too.
    See https://keras.io/getting_started/faq/#whats-the-difference-between-the-training-argument-in-call-and-the-trainable-attribute
    """
    names = {s.name for s in frozen}
    layers = {id(s.layer): s.layer for s in frozen if s.layer is not model}
    for s in statistics(model):
        if s.name not in names:
            layers.pop(id(s.layer), None)
    return list(layers.values())
