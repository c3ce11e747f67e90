"""The non-trainable weights of a model, such as the moving statistics of BatchNormalization."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from masksweep.strategies.base import match, match_each
from masksweep.strategies.weights import owners


@dataclass(frozen=True)
class Statistic:
    """One non-trainable weight that a layer updates in its forward pass."""

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
        updated: Globs on the names of the statistics that are updated; `None` takes those of
            `trainable`, so that a layer outside of them stands still as a whole.

    Returns:
        The statistics that none of the globs matches.

    Raises:
        Invalid: A glob of `updated` matches no statistic.
    """
    every = statistics(model)
    names = [s.name for s in every]
    if updated is None:
        updated = [glob for glob in trainable if match(names, [glob])]
    kept = match_each("statistics", names, updated)
    return [s for s in every if s.name not in kept]


def layers_at_rest(model: Any, frozen: Sequence[Statistic]) -> list[Any]:
    """The layers of which every statistic is frozen.

    They compute as Keras' layers with `trainable = False`: BatchNormalization normalizes by its
    moving statistics then, in training as well.
    See https://keras.io/getting_started/faq/#whats-the-difference-between-the-training-argument-in-call-and-the-trainable-attribute
    """
    names = {s.name for s in frozen}
    layers = {id(s.layer): s.layer for s in frozen}
    for s in statistics(model):
        if s.name not in names:
            layers.pop(id(s.layer), None)
    return list(layers.values())


@contextmanager
def at_rest(layers: Sequence[Any]) -> Iterator[None]:
    """Set `layer.trainable = False` for the time of a forward pass."""
    before = [layer.trainable for layer in layers]
    for layer in layers:
        layer.trainable = False
    try:
        yield
    finally:
        for layer, trainable in zip(layers, before, strict=True):
            layer.trainable = trainable
