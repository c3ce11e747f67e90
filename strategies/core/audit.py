"""Masked-weight integrity, bit for bit. It knows the plan, never the strategy."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from masksweep.strategies.base import Array, Plan
from masksweep.strategies.core.weights import describe

AGREEMENT = 1e-5
"""Allowed distance of the live model's outputs from the baked model's, times max(1, |outputs|)."""


def bits(array: Array) -> Array:
    """The same memory as unsigned integers: -0.0 differs from +0.0, and NaN equals itself."""
    # of a scalar, ascontiguousarray makes a vector
    return np.asarray(array, order="C").view(f"u{array.dtype.itemsize}")


def count(weight: Any, kept: Any, held: Any, lanes: bool = False) -> tuple[Any, Any]:
    """In a graph: (violations int64, largest drift float32) of one dense weight.

    A NaN is an infinite drift. With `lanes` all have a first axis more, and so has the answer.
    """
    import tensorflow as tf

    integer = {2: tf.int16, 4: tf.int32, 8: tf.int64}[weight.dtype.size]
    wrong = ~kept & (tf.bitcast(weight, integer) != tf.bitcast(held, integer))
    axes = list(range(1, len(weight.shape))) if lanes else None

    def told() -> tuple[Any, Any]:
        drift = tf.cast(tf.abs(weight - held), tf.float32)
        drift = tf.where(tf.math.is_nan(drift), tf.constant(np.inf, tf.float32), drift)
        largest = tf.reduce_max(tf.where(wrong, drift, tf.zeros_like(drift)), axes)
        return tf.math.count_nonzero(wrong, axes, dtype=tf.int64), largest

    def none() -> tuple[Any, Any]:
        shape = weight.shape[:1] if lanes else []
        return tf.zeros(shape, tf.int64), tf.zeros(shape, tf.float32)

    # counting takes longer than a look whether there is any, and there rarely is
    found: tuple[Any, Any] = tf.cond(tf.reduce_any(wrong), told, none)
    return found


def violations(weights: Mapping[str, Array], plan: Plan) -> tuple[int, float]:
    """(violations, largest drift) of dense weights by name, bit for bit."""
    total, largest = 0, 0.0
    for w in plan.weights:
        found = weights[w.weight.name]
        wrong = ~w.mask & (bits(found) != bits(w.held))
        total += int(wrong.sum())
        if wrong.any():
            with np.errstate(invalid="ignore"):
                drift = np.abs(found[wrong].astype(np.float64) - w.held[wrong].astype(np.float64))
            largest = max(largest, float(np.where(np.isnan(drift), np.inf, drift).max()))
    return total, largest


def moved(start: Mapping[str, Array], end: Mapping[str, Array], plan: Plan) -> float:
    """Fraction of the kept entries of the masked weights that changed.

    Where every masked weight is held whole, it is that of all the other weights.
    """
    masks = {w.weight.name: w.mask for w in plan.weights}
    if not any(m.any() for m in masks.values()):
        masks |= {n: np.ones(a.shape, bool) for n, a in start.items() if n not in masks}
    kept = sum(int(m.sum()) for m in masks.values())
    changed = sum(int((m & (bits(start[n]) != bits(end[n]))).sum()) for n, m in masks.items())
    return changed / kept if kept else 0.0


class Loader:
    """Loads saved Keras models, one after the other.

    Building a model takes longer than reading its values, so those of one architecture are read
    into one model, which thus is good until the next is loaded.
    """

    def __init__(self) -> None:
        self._config = b""
        self._model: Any = None

    def load(self, path: Path) -> Any:
        """The model of a `.keras` file: of what such a file holds, nothing is from elsewhere.

        Keras leaves the states of seeds out of it. Raises what `zipfile` and Keras do.
        """
        import keras
        import tensorflow as tf

        with zipfile.ZipFile(path) as file:
            config = file.read("config.json")
            assets = any(name.startswith("assets/") for name in file.namelist())
        if config != self._config or assets:
            self._model = keras.models.load_model(path, compile=False, safe_mode=True)
            self._config = b"" if assets else config
            return self._model
        for variable in self._model.variables:  # what the file does not set must show
            dtype = tf.as_dtype(variable.dtype)
            unread = np.nan if dtype.is_floating else dtype.max if dtype.is_integer else 1
            variable.assign(tf.fill(variable.shape, tf.cast(unread, dtype)))
        self._model.load_weights(path)
        return self._model


def bake(
    model: Any,
    weights: Mapping[str, Array],
    state: list[Array],
    path: Path,
    loader: Loader | None = None,
) -> Any:
    """Write dense weights and non-trainables into `model`, save it, and load it from the file.

    The file is a plain Keras model: no strategy, no mask. `path` must end in `.keras`.
    """
    for weight, variable in zip(describe(model), model.trainable_variables, strict=True):
        variable.assign(weights[weight.name])
    for variable, value in zip(model.non_trainable_variables, state, strict=True):
        variable.assign(value)
    model.save(path)
    return (loader or Loader()).load(path)


def digest(weights: Mapping[str, Array]) -> str:
    """SHA-256 of weights by name: names, dtypes, shapes and little-endian bytes."""
    sha = hashlib.sha256()
    for name, array in weights.items():
        sha.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    return sha.hexdigest()


@dataclass(frozen=True)
class Integrity:
    """The verdict on one trained model. Drifts are absolute, in the weights' own unit."""

    violations: int
    """Masked entries of the reloaded model that differ from their held value in any bit."""
    peak_violations: int
    """The most at any audited step."""
    first_violation_step: int | None
    max_drift: float
    peak_drift: float
    slot_leak: float
    raw_drift: float | None
    """Largest move of the raw variable behind a masked entry, where it has the weight's shape."""
    moved: float
    agreement: float
    """Largest distance of the live model's outputs from the reloaded model's."""
    tolerance: float
    output_drift: float | None
    """Largest move of a held output on real data; None if no output is held."""
    reloaded_exactly: bool
    frozen_violations: int | None = None
    """Entries of weights and statistics that must not train and differ from their start in any bit;
    None where all train."""

    @property
    def ok(self) -> bool:
        """Whether the masked weights were held, and there was something to hold them against."""
        return (
            self.violations == 0
            and self.peak_violations == 0
            and self.reloaded_exactly
            and self.agreement <= self.tolerance
            and self.moved > 0
            and not self.output_drift
            and not self.frozen_violations
        )

    def metrics(self) -> dict[str, float]:
        """By the names of the house; what does not apply is left out."""
        found = {
            "ok": float(self.ok),
            "violations": self.violations,
            "peak_violations": self.peak_violations,
            "first_violation_step": self.first_violation_step,
            "max_drift": self.max_drift,
            "peak_drift": self.peak_drift,
            "slot_leak": self.slot_leak,
            "raw_drift": self.raw_drift,
            "moved": self.moved,
            "agreement": self.agreement,
            "output_drift": self.output_drift,
            "frozen_violations": self.frozen_violations,
        }
        return {f"integrity/{k}": float(v) for k, v in found.items() if v is not None}


def same(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    """Whether two sets of weights have the same names and the same bits."""
    return one.keys() == other.keys() and all(alike(one[n], other[n]) for n in one)


def differing(one: Mapping[str, Array], other: Mapping[str, Array]) -> int:
    """How many entries of arrays of the same names differ in any bit."""
    return sum(int((bits(one[name]) != bits(other[name])).sum()) for name in one)


def alike(one: Array, other: Array) -> bool:
    """Whether two arrays have the same shape, dtype and bits."""
    fits = one.shape == other.shape and one.dtype == other.dtype
    return fits and np.array_equal(bits(one), bits(other))
