"""The non-trainable weights of a model, such as the moving statistics of BatchNormalization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from masksweep.strategies.base import match, match_each
from masksweep.strategies.core.weights import owners


@dataclass(frozen=True)
class Statistic:
    """One non-trainable weight: a layer may update it in its forward pass."""

    name: str
    """`layer/variable`, as the names of trainable weights."""
    variable: Any
    layer: Any


def statistics(model: Any) -> list[Statistic]:
    """The non-trainable weights of a built Keras model, in the order of its layers.

    The states of random seeds and of metrics are not among them, as in
    `keras.Model.non_trainable_weights`. The weights of layers with `trainable = False` are.
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
    """The statistics that must not change.

    Args:
        model: A built Keras model.
        trainable: Globs on the names of the weights that train.
        updated: Globs on the names of the statistics that are updated. `None` freezes a statistic
            where nothing of its layer trains, as `layer.trainable = False` does: no glob of
            `trainable` matches it, no weight of its layer trains, and not all of the model's do.

    Returns:
        The statistics that none of the globs matches.

    Raises:
        Invalid: A glob of `updated` matches no statistic.
    """
    every = statistics(model)
    names = [s.name for s in every]
    if updated is not None:
        kept = match_each("statistics", names, updated)
        return [s for s in every if s.name not in kept]
    kept = match(names, trainable)
    weights = {id(v) for v in model.trainable_variables}
    owned = {name: layer for key, (name, layer) in owners(model).items() if key in weights}
    training = match(list(owned), trainable)
    if len(training) == len(owned):
        return []
    trains = {id(owned[name]) for name in training}
    return [s for s in every if s.name not in kept and id(s.layer) not in trains]


def layers_at_rest(model: Any, frozen: Sequence[Statistic]) -> list[Any]:
    """The layers of which every statistic is frozen; the model itself is not among them.

    They compute as Keras' layers with `trainable = False`: BatchNormalization normalizes by its
    moving statistics then, in training as well.
    See https://keras.io/getting_started/faq/#whats-the-difference-between-the-training-argument-in-call-and-the-trainable-attribute
    """
    names = {s.name for s in frozen}
    layers = {id(s.layer): s.layer for s in frozen if s.layer is not model}
    for s in statistics(model):
        if s.name not in names:
            layers.pop(id(s.layer), None)
    return list(layers.values())
