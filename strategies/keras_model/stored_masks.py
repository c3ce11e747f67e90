"""Stores the masks and held values of a masked model in Keras' own files.

Masks are stored as bits. A held value that all entries of a weight share is stored once.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from masksweep.strategies.base import Strategy
from masksweep.strategies.core.audit import one_if_equal
from masksweep.strategies.core.held_weight import HeldWeight
from masksweep.strategies.core.weight_name import stable
from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array, MaskedWeight, Plan, Weight, collapse_constant

WEIGHTS = "masked_weights"
"""Name of the array with the names, shapes and strategies of the masked weights, as JSON."""
MASK, HELD, START, VALUE, SEED = "mask_{}", "held_{}", "start_{}", "value_{}", "seed_{}"
"""Names of the arrays; the number is the place of the weight, or of the seed, in the model."""
ORDER = "order_{}"
"""Name of the digest of the layout, which tells the order of the values that train."""
OTHER_ORDER = (
    "an earlier version wrote this file, with the values in an order that is not known here: "
    "export a plain model with that version"
)


def settings(strategy: Strategy) -> dict[str, Any]:
    """Returns the name and the settings of a strategy."""
    return {"name": strategy.name, **asdict(strategy)}  # type: ignore[call-overload]


def _description(weights: Sequence[Weight], strategies: Mapping[str, Strategy]) -> str:
    entries = [[stable(w.name), list(w.shape), settings(strategies[w.name])] for w in weights]
    return json.dumps(entries, sort_keys=True)


def save(
    store: Any,
    weights: Sequence[HeldWeight],
    strategies: Mapping[str, Strategy],
    start: Mapping[str, Array],
    seeds: Sequence[Any],
) -> None:
    """Stores what is not among the variables of a model's layers.

    Args:
        store: The mapping that Keras gives to `save_own_variables`.
        weights: The masked weights.
        strategies: Their strategies by name.
        start: The masked weights before the training, by name.
        seeds: The variables of the model's random seeds.
    """
    description = _description([w.weight for w in weights], strategies)
    store[WEIGHTS] = np.frombuffer(description.encode(), np.uint8)
    for i, weight in enumerate(weights):
        kept, held = weight.kept, weight.held.numpy()
        store[MASK.format(i)] = kept.variable if weight.kept_only else np.packbits(kept.numpy())
        store[HELD.format(i)] = one_if_equal(collapse_constant(held))
        store[START.format(i)] = start[weight.weight.name]
        if weight.value is not weight.variable:
            store[VALUE.format(i)] = weight.value
            store[ORDER.format(i)] = _order(weight)
    for i, seed in enumerate(seeds):
        store[SEED.format(i)] = seed


def load(
    store: Any, weights: Sequence[Weight], strategies: Mapping[str, Strategy]
) -> tuple[Plan, dict[str, Array], dict[str, int]]:
    """Reads the masks and held values.

    Args:
        store: The mapping that Keras gives to `load_own_variables`.
        weights: The weights that are masked, in the model's order.
        strategies: Their strategies by name.

    Returns:
        The plan, the masked weights before the training by name, and by name the number of values
        that train in the place of a weight.

    Raises:
        Invalid: The file is of a model with other masked weights or strategies, or does not tell in
            which order its values are.
    """
    require_same(bytes(np.asarray(store[WEIGHTS])).decode(), weights, strategies)
    masked, start, places = [], {}, {}
    for i, weight in enumerate(weights):
        packed = np.asarray(store[MASK.format(i)])
        mask = np.unpackbits(packed, count=int(np.prod(weight.shape))).astype(bool)
        held = np.broadcast_to(np.asarray(store[HELD.format(i)]), weight.shape)
        masked.append(MaskedWeight(weight, mask.reshape(weight.shape), held))
        start[weight.name] = np.array(store[START.format(i)])
        if VALUE.format(i) in store:
            places[weight.name] = int(np.prod(store[VALUE.format(i)].shape))
        if strategies[weight.name].for_weight(masked[-1]) != strategies[weight.name]:
            raise Invalid("weights", weight.name, OTHER_ORDER)
    return Plan(tuple(masked)), start, places


def _order(weight: HeldWeight) -> Array:
    """Returns the SHA-256 of the layout, `[32]` uint8."""
    return np.frombuffer(hashlib.sha256(weight.layout.numpy().tobytes()).digest(), np.uint8)


def load_values(store: Any, weights: Sequence[HeldWeight], seeds: Sequence[Any]) -> None:
    """Sets the variables that train in the place of masked weights, and the random seeds.

    Raises:
        Invalid: The values in the file have another order than those of this version.
    """
    for i, weight in enumerate(weights):
        if weight.value is weight.variable:
            continue
        if VALUE.format(i) not in store:  # a file of before, in which the variable trained itself
            weight.value.assign(weight.initial(weight.variable.value))
            continue
        order = np.asarray(store[ORDER.format(i)]) if ORDER.format(i) in store else None
        is_other = weight.kept_only if order is None else (order != _order(weight)).any()
        if is_other:
            raise Invalid("weights", weight.weight.name, OTHER_ORDER)
        weight.value.assign(store[VALUE.format(i)])
    for i, seed in enumerate(seeds):
        seed.assign(store[SEED.format(i)])


def require_same(saved: str, weights: Sequence[Weight], strategies: Mapping[str, Strategy]) -> None:
    """Checks that a file is of a model with the same masked weights and strategies.

    Raises:
        Invalid: It is not.
    """
    expected = _description(weights, strategies)
    by_names = [replace(w, name=str(w.name)) for w in weights]  # as earlier versions wrote it
    if saved not in (expected, _description(by_names, strategies)):
        names = ", ".join(f"{name} ({s['name']})" for name, _, s in json.loads(saved))
        raise Invalid("weights", names, f"must be masked as in this model: {expected}")


def description_in(path: Any) -> str | None:
    """Returns the description of the masked weights in a file, or None for a plain model.

    Args:
        path: A `.weights.h5`, `.keras` or `.weights.json` file.

    Raises:
        Invalid: There is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise Invalid("filepath", path, "must be a file of weights")
    files: list[Any] = [path]
    if path.suffix == ".json":  # the list of several files
        shards = json.loads(path.read_text())["weight_map"].get("/vars", [])
        files = [path.parent / name for name in shards]
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            files = [io.BytesIO(archive.read("model.weights.h5"))]
    for file in files:
        with h5py.File(file, "r") as weights:
            if WEIGHTS in weights.get("vars", {}):
                return bytes(weights["vars"][WEIGHTS][:]).decode()
    return None
