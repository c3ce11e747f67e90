"""The audit of masked weights, bit for bit.

It uses only the plan and the weights, so it is the same for all strategies.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from masksweep.strategies.core.weights import describe
from masksweep.strategies.plan import Array, Plan

MAX_OUTPUT_DIFFERENCE = 1e-5
"""Largest allowed difference between the outputs of the trained and of the reloaded model, as a
factor of `max(1, largest |output|)`."""

PART_ENTRIES = 2**18
"""Number of entries that are compared at once, so that few temporary arrays are in memory."""


def bits(array: Array) -> Array:
    """Returns the same memory as unsigned integers.

    Compared as integers, -0.0 differs from +0.0, and a NaN equals itself.
    """
    # not ascontiguousarray, which would make a vector of a scalar
    return np.asarray(array, order="C").view(f"u{array.dtype.itemsize}")


def one_if_equal(array: Array) -> Array:
    """Returns the array as a scalar if all its entries have the same bits, else unchanged."""
    equal = array.size > 0 and bool((bits(array) == bits(array).flat[0]).all())
    return array.reshape(-1)[0].reshape(()) if equal else array


def count_violations(weight: Any, kept: Any, held: Any, lanes: bool = False) -> tuple[Any, Any]:
    """Counts the violations of one dense weight, with TensorFlow.

    A violation is a masked entry that differs from its held value in any bit.

    Args:
        weight: The dense weight, a floating tensor.
        kept: Its mask (True = kept), in the same shape.
        held: Its held values, in the same shape and dtype.
        lanes: Whether the tensors have one more axis in front, with one weight for each trial.

    Returns:
        The number of violations (int64) and the largest drift (float32), each of shape `[]`, or
        `[lanes]`. The drift of an entry is its distance from the held value, infinite for a NaN.
    """
    import tensorflow as tf

    integer = {2: tf.int16, 4: tf.int32, 8: tf.int64}[weight.dtype.size]
    differs = ~kept & (tf.bitcast(weight, integer) != tf.bitcast(held, integer))
    axes = list(range(1, len(weight.shape))) if lanes else None

    def count_and_drift() -> tuple[Any, Any]:
        drift = tf.cast(tf.abs(weight - held), tf.float32)
        drift = tf.where(tf.math.is_nan(drift), tf.constant(np.inf, tf.float32), drift)
        largest = tf.reduce_max(tf.where(differs, drift, tf.zeros_like(drift)), axes)
        return tf.math.count_nonzero(differs, axes, dtype=tf.int64), largest

    def nothing_found() -> tuple[Any, Any]:
        shape = weight.shape[:1] if lanes else []
        return tf.zeros(shape, tf.int64), tf.zeros(shape, tf.float32)

    # counting takes longer than the test for any violation, and there rarely is one
    result: tuple[Any, Any] = tf.cond(tf.reduce_any(differs), count_and_drift, nothing_found)
    return result


def violations(weights: Mapping[str, Array], plan: Plan) -> tuple[int, float]:
    """Counts the violations of dense weights, with NumPy.

    A violation is a masked entry that differs from its held value in any bit.

    Args:
        weights: Dense weights by name.
        plan: The masks and held values.

    Returns:
        The number of violations and the largest drift. The drift of an entry is its distance from
        the held value, infinite for a NaN.
    """
    total, largest = 0, 0.0
    for w in plan.weights:
        for mask, values, held in in_parts(w.mask, weights[w.weight.name], w.held):
            wrong = ~mask & (bits(values) != bits(held))
            if not wrong.any():
                continue
            total += int(wrong.sum())
            with np.errstate(invalid="ignore"):
                drift = np.abs(values[wrong].astype(np.float64) - held[wrong].astype(np.float64))
            largest = max(largest, float(np.where(np.isnan(drift), np.inf, drift).max()))
    return total, largest


def in_parts(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Yields slices of the first axis of arrays of the same shape, which need little memory."""
    first = arrays[0]
    if first.size <= PART_ENTRIES:
        yield arrays
        return
    rows = max(1, PART_ENTRIES * len(first) // first.size)
    for start in range(0, len(first), rows):
        yield tuple(array[start : start + rows] for array in arrays)


def moved_fraction(start: Mapping[str, Array], end: Mapping[str, Array], plan: Plan) -> float:
    """Returns the fraction of the kept entries that changed between `start` and `end`.

    The entries are those of the masked weights. If these have no kept entry at all, the entries of
    all other weights are taken.

    Args:
        start: Dense weights by name.
        end: Dense weights by name, later.
        plan: The masks.

    Returns:
        A number in [0, 1].
    """
    masks = {w.weight.name: w.mask for w in plan.weights}
    if not any(m.any() for m in masks.values()):
        masks |= {n: np.ones(a.shape, bool) for n, a in start.items() if n not in masks}
    kept = sum(int(m.sum()) for m in masks.values())
    changed = sum(
        int((mask & (bits(before) != bits(after))).sum())
        for name, m in masks.items()
        for mask, before, after in in_parts(m, start[name], end[name])
    )
    return changed / kept if kept else 0.0


class Loader:
    """Loads saved Keras models, one after the other.

    Building a model takes longer than reading its values. So the loader builds a new model only if
    the architecture differs from that of the previous file; else it reads the values into the same
    model. A loaded model is therefore valid only until the next one is loaded.
    """

    def __init__(self) -> None:
        self._config = b""
        self._model: Any = None

    def load(self, path: Path) -> Any:
        """Returns the model of a `.keras` file.

        All values are those of the file; none is left from the previous model. States of seeds are
        the exception, because Keras does not save them.

        Raises:
            Exception: Any exception of `zipfile` or Keras, if the file cannot be read.
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
        # a variable that the file does not set must not keep its value of the previous model
        for variable in self._model.variables:
            dtype = tf.as_dtype(variable.dtype)
            unread = np.nan if dtype.is_floating else dtype.max if dtype.is_integer else 1
            variable.assign(tf.fill(variable.shape, tf.cast(unread, dtype)))
        self._model.load_weights(path)
        return self._model


def save_and_reload(
    model: Any,
    weights: Mapping[str, Array],
    state: list[Array],
    path: Path,
    loader: Loader | None = None,
) -> Any:
    """Writes weights into a model, saves it, and loads it again from the file.

    The file has a plain Keras model without a strategy or mask.

    Args:
        model: A built Keras model. Its variables are changed.
        weights: Dense trainable weights by name.
        state: Values of `model.non_trainable_variables`, in their order.
        path: File to write; its name must end in `.keras`.
        loader: Loads the file; by default a new one.

    Returns:
        The loaded model.
    """
    for weight, variable in zip(describe(model), model.trainable_variables, strict=True):
        variable.assign(weights[weight.name])
    for variable, value in zip(model.non_trainable_variables, state, strict=True):
        variable.assign(value)
    model.save(path)
    return (loader or Loader()).load(path)


def digest(weights: Mapping[str, Array]) -> str:
    """Returns the SHA-256 of weights: of their names, dtypes, shapes and little-endian bytes."""
    sha = hashlib.sha256()
    for name, array in weights.items():
        sha.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    return sha.hexdigest()


@dataclass(frozen=True)
class Integrity:
    """The result of the audit of one trained model.

    A drift is the absolute distance of a masked entry from its held value.
    """

    violations: int
    """Number of masked entries of the reloaded model that differ in any bit from the held value."""
    peak_violations: int
    """Largest number of violations at an audited step."""
    first_violation_step: int | None
    """First audited step with a violation; None if there is none."""
    max_drift: float
    """Largest drift in the reloaded model."""
    peak_drift: float
    """Largest drift at an audited step."""
    slot_leak: float
    """Largest distance of an optimizer slot from its initial value at a masked entry."""
    raw_drift: float | None
    """Largest change of the raw variable at a masked entry. None if the variable that trains does
    not have the weight's shape."""
    moved: float
    """Fraction of the kept entries that changed, in [0, 1]."""
    agreement: float
    """Largest difference between the outputs of the trained and of the reloaded model."""
    tolerance: float
    """Largest allowed `agreement`."""
    output_drift: float | None
    """Largest change of a held output on real data; None if no output is held."""
    reloaded_exactly: bool
    """Whether the reloaded weights and states have the same bits as those that were saved."""
    frozen_violations: int | None = None
    """Number of entries of weights and statistics that must not train, but differ from their start
    in any bit. None if all of them train."""
    must_move: bool = True
    """Whether kept entries must have moved. False if nothing was trained."""

    @property
    def ok(self) -> bool:
        """Whether the model passes the audit.

        It passes if no masked entry, held output or frozen entry ever changed, the reloaded model
        agrees with the trained one, and kept entries moved. Where nothing moves, a mask that holds
        proves nothing. The last condition is dropped if nothing was trained on purpose
        (`must_move`): the result then says only that the masks were applied.
        """
        return (
            self.violations == 0
            and self.peak_violations == 0
            and self.reloaded_exactly
            and self.agreement <= self.tolerance
            and (self.moved > 0 or not self.must_move)
            and not self.output_drift
            and not self.frozen_violations
        )

    def metrics(self) -> dict[str, float]:
        """Returns the values that are not None, by the names under which they are logged."""
        fields = {
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
        return {f"integrity/{k}": float(v) for k, v in fields.items() if v is not None}


def same_weights(first: Mapping[str, Array], second: Mapping[str, Array]) -> bool:
    """Returns whether two sets of weights have the same names, shapes, dtypes and bits."""
    return first.keys() == second.keys() and all(same_bits(first[n], second[n]) for n in first)


def count_differing(first: Mapping[str, Array], second: Mapping[str, Array]) -> int:
    """Returns how many entries differ in any bit between arrays of the same names and shapes."""
    return sum(int((bits(first[name]) != bits(second[name])).sum()) for name in first)


def same_bits(first: Array, second: Array) -> bool:
    """Returns whether two arrays have the same shape, dtype and bits."""
    comparable = first.shape == second.shape and first.dtype == second.dtype
    return comparable and np.array_equal(bits(first), bits(second))
