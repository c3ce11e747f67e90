"""Stores the masks and held values of a masked model in Keras' own files.

Masks are stored as bits. A held value that all entries of a weight share is stored once.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from masksweep.strategies.base import Array, Invalid, MaskedWeight, Plan, Weight
from masksweep.strategies.core.audit import one_if_equal
from masksweep.strategies.core.held_weight import HeldWeight

MASK, HELD, START, VALUE, SEED = "mask_{}", "held_{}", "start_{}", "value_{}", "seed_{}"
"""Names of the arrays; the number is the place of the weight, or of the seed, in the model."""


def save(
    store: Any, weights: Sequence[HeldWeight], start: Mapping[str, Array], seeds: Sequence[Any]
) -> None:
    """Stores what is not among the variables of a model's layers.

    Args:
        store: The mapping that Keras gives to `save_own_variables`.
        weights: The masked weights.
        start: The masked weights before the training, by name.
        seeds: The variables of the model's random seeds.
    """
    for i, weight in enumerate(weights):
        store[MASK.format(i)] = np.packbits(weight.kept.numpy())
        store[HELD.format(i)] = one_if_equal(weight.held.numpy())
        store[START.format(i)] = start[weight.weight.name]
        if weight.value is not weight.variable:
            store[VALUE.format(i)] = weight.value
    for i, seed in enumerate(seeds):
        store[SEED.format(i)] = seed


def load(store: Any, weights: Sequence[Weight]) -> tuple[Plan, dict[str, Array]]:
    """Reads the masks and held values.

    Args:
        store: The mapping that Keras gives to `load_own_variables`.
        weights: The weights that are masked, in the model's order.

    Returns:
        The plan, and the masked weights before the training by name.
    """
    masked, start = [], {}
    for i, weight in enumerate(weights):
        packed = np.asarray(store[MASK.format(i)])
        mask = np.unpackbits(packed, count=int(np.prod(weight.shape))).astype(bool)
        held = np.broadcast_to(np.asarray(store[HELD.format(i)]), weight.shape)
        masked.append(MaskedWeight(weight, mask.reshape(weight.shape), held))
        start[weight.name] = np.array(store[START.format(i)])
    return Plan(tuple(masked)), start


def load_values(store: Any, weights: Sequence[HeldWeight], seeds: Sequence[Any]) -> None:
    """Sets the variables that train in the place of masked weights, and the random seeds."""
    for i, weight in enumerate(weights):
        if weight.value is not weight.variable:
            weight.value.assign(store[VALUE.format(i)])
    for i, seed in enumerate(seeds):
        seed.assign(store[SEED.format(i)])


def in_file(path: Any) -> bool:
    """Returns whether a file of weights is one of a masked model.

    Args:
        path: A `.weights.h5` or `.keras` file.

    Raises:
        Invalid: There is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise Invalid("filepath", path, "must be a file of weights")
    file: Any = path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            file = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(file, "r") as weights:
        return MASK.format(0) in weights.get("vars", {})
