"""Tests of the audit: it finds a single changed bit, and each failed condition alone fails it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import layers

from masksweep.strategies import MaskedWeight, Plan, Weight
from masksweep.strategies.core.audit import (
    Integrity,
    Loader,
    bits,
    count_violations,
    digest,
    moved_fraction,
    same_weights,
    save_and_reload,
    violations,
)
from masksweep.strategies.core.weights import values
from masksweep.strategies.plan import Array, Mask

NAME = "hidden/kernel"
SHAPE = (3, 4)
DTYPES = ["float16", "float32", "float64"]


def plan_of(mask: Mask, held: Array, name: str = NAME) -> Plan:
    weight = Weight(name, held.shape, str(held.dtype), "Dense")
    return Plan((MaskedWeight(weight, mask, held),))


# -- bits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_tell_what_values_do_not(dtype: str) -> None:
    zero, minus, nan = np.array([[0.0], [-0.0], [np.nan]], dtype)
    assert zero == minus
    assert bits(zero) != bits(minus)
    assert nan != nan
    assert bits(nan) == bits(nan.copy())


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_one_flipped_bit_is_found(dtype: str, data: st.DataObject) -> None:
    held = data.draw(arrays(dtype, SHAPE))
    mask = data.draw(arrays(bool, SHAPE))
    plan = plan_of(mask, held)
    assert violations({NAME: held}, plan) == (0, 0.0)
    place = data.draw(st.integers(0, held.size - 1))
    bit = data.draw(st.integers(0, 8 * held.itemsize - 1))
    flipped = held.copy()
    integers = flipped.reshape(-1).view(f"u{held.itemsize}")
    integers[place] ^= integers.dtype.type(1 << bit)
    assert violations({NAME: flipped}, plan)[0] == (not mask.flat[place])


def test_drift_is_the_largest_entry_by_entry() -> None:
    """Drifts of opposite signs do not cancel, and kept entries do not count."""
    held = np.zeros(4, "float32")
    plan = plan_of(np.array([True, False, False, False]), held)
    assert violations({NAME: np.array([9, 1, -2, 1], "float32")}, plan) == (3, 2.0)
    assert violations({NAME: np.array([9, 0, np.nan, 1], "float32")}, plan) == (2, np.inf)
    assert violations({NAME: np.array([9, 0, np.inf, 1], "float32")}, plan) == (2, np.inf)
    assert violations({NAME: np.array([9, 0, -0.0, 0], "float32")}, plan) == (1, 0.0)


def test_violations_add_up() -> None:
    plan = Plan(
        tuple(plan_of(np.zeros(2, bool), np.zeros(2, "float32"), name).weights[0] for name in "ab")
    )
    weights = {"a": np.ones(2, "float32"), "b": np.array([0, 3], "float32")}
    assert violations(weights, plan) == (3, 3.0)


WEIGHTS = arrays(
    "float32",
    SHAPE,
    # no difference exceeds the largest float32; TensorFlow replaces subnormal numbers by zero
    elements=st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)
    | st.sampled_from([np.nan, np.inf, -np.inf, -0.0]),
)


@tf.function
def count_in_graph(weight: tf.Tensor, kept: tf.Tensor, held: tf.Tensor) -> Any:
    return count_violations(weight, kept, held)


@pytest.mark.parametrize("dtype", DTYPES)
@given(weight=WEIGHTS, mask=arrays(bool, SHAPE), held=WEIGHTS)
def test_the_graph_counts_the_same(dtype: str, weight: Array, mask: Mask, held: Array) -> None:
    with np.errstate(over="ignore"):
        weight, held = weight.astype(dtype), held.astype(dtype)
    total, drift = count_in_graph(tf.constant(weight), tf.constant(mask), tf.constant(held))
    expected, largest = violations({NAME: weight}, plan_of(mask, held))
    assert total.numpy() == expected
    if dtype == "float16" and np.isfinite(largest):
        return  # a difference of two float16 may overflow, so only the count must agree
    np.testing.assert_allclose(drift.numpy(), largest, rtol=1e-6)


# -- moved -----------------------------------------------------------------------------------


def test_moved_is_the_fraction_of_the_kept() -> None:
    start = {NAME: np.zeros(4, "float32"), "hidden/bias": np.zeros(2, "float32")}
    end = {NAME: np.array([1, 0, 1, 1], "float32"), "hidden/bias": np.ones(2, "float32")}
    plan = plan_of(np.array([True, True, False, False]), start[NAME])
    assert moved_fraction(start, end, plan) == 0.5
    assert moved_fraction(start, start, plan) == 0


def test_moved_of_a_weight_held_whole_is_that_of_the_others() -> None:
    start = {NAME: np.zeros(4, "float32"), "hidden/bias": np.zeros(2, "float32")}
    end = {NAME: np.ones(4, "float32"), "hidden/bias": np.array([0, 1], "float32")}
    plan = plan_of(np.zeros(4, bool), start[NAME])
    assert moved_fraction(start, end, plan) == 0.5
    assert moved_fraction({NAME: start[NAME]}, {NAME: end[NAME]}, plan) == 0


# -- digests ---------------------------------------------------------------------------------

ONE = {"a": np.arange(6, dtype="float32").reshape(2, 3), "b": np.zeros(2, "float32")}


@pytest.mark.parametrize(
    "other",
    [
        {"c": ONE["a"], "b": ONE["b"]},
        {"a": ONE["a"]},
        {"a": ONE["a"], "b": -ONE["b"]},
        {"a": ONE["a"], "b": ONE["b"].astype("float64")},
        {"a": ONE["a"], "b": np.zeros(3, "float32")},
        {"a": ONE["a"].reshape(3, 2), "b": ONE["b"]},
        {"a": ONE["a"], "b": ONE["b"].view("int32")},
    ],
    ids=["name", "fewer", "bit", "width", "size", "shape", "dtype"],
)
def test_digest_and_same_see_every_difference(other: dict[str, Array]) -> None:
    assert digest(ONE) != digest(other)
    assert not same_weights(ONE, other)


def test_digest_and_same_see_no_difference_in_memory() -> None:
    other = {name: np.asfortranarray(array) for name, array in ONE.items()}
    assert digest(ONE) == digest(other)
    assert same_weights(ONE, other)


def test_digests_never_change() -> None:
    """Digests are logged with each trial, so old and new ones must be comparable."""
    golden = "ec43f356cf8ccc79b9ff4362c7553f782414c501cf2aaaa89f11c94befcd5ffd"
    assert digest({"a": ONE["a"]}) == golden


# -- the verdict -----------------------------------------------------------------------------

HELD = Integrity(
    violations=0,
    peak_violations=0,
    first_violation_step=None,
    max_drift=0.0,
    peak_drift=0.0,
    slot_leak=0.1,
    raw_drift=0.2,
    moved=0.9,
    agreement=1e-7,
    tolerance=1e-5,
    output_drift=None,
    reloaded_exactly=True,
)


def test_all_well() -> None:
    assert HELD.ok
    assert replace(HELD, output_drift=0.0).ok
    assert replace(HELD, agreement=HELD.tolerance).ok


@pytest.mark.parametrize(
    "failure",
    [
        {"violations": 1},
        {"peak_violations": 1},
        {"reloaded_exactly": False},
        {"agreement": 2e-5},
        {"agreement": float("nan")},
        {"moved": 0.0},
        {"output_drift": 1e-9},
        {"output_drift": float("nan")},
    ],
    ids=str,
)
def test_each_failure_alone_decides(failure: dict[str, Any]) -> None:
    failed = replace(HELD, **failure)
    assert not failed.ok
    assert failed.metrics()["integrity/ok"] == 0


def test_metrics_leave_out_what_does_not_apply() -> None:
    assert set(HELD.metrics()) == {
        f"integrity/{name}"
        for name in [
            "ok",
            "violations",
            "peak_violations",
            "max_drift",
            "peak_drift",
            "slot_leak",
            "raw_drift",
            "moved",
            "agreement",
        ]
    }
    more = replace(HELD, first_violation_step=3, output_drift=0.0).metrics()
    assert more["integrity/first_violation_step"] == 3
    assert more["integrity/output_drift"] == 0
    assert more["integrity/ok"] == 1


# -- bake ------------------------------------------------------------------------------------


def saved(path: Path, value: float, units: int = 2) -> tuple[Path, list[Array]]:
    """Saves a model. Returns its path and the values of its variables."""
    inner = [layers.Dense(units, name="dense"), layers.BatchNormalization(name="norm")]
    model = keras.Sequential([keras.Input((3,), name="input"), *inner], name="model")
    for number, variable in enumerate(model.variables):
        variable.assign(np.full(variable.shape, value + number, variable.dtype))
    model.save(path)
    return path, [v.numpy() for v in model.variables]


def test_a_loader_reads_each_file(tmp_path: Path) -> None:
    """This includes a file that is read into the same model as the file before."""
    files = [
        saved(tmp_path / f"{n}.keras", 10 * n, units) for n, units in enumerate((2, 2, 3, 2, 2))
    ]
    loader, models = Loader(), []
    for path, file_values in files:
        models.append(loader.load(path))
        for variable, array in zip(models[-1].variables, file_values, strict=True):
            np.testing.assert_array_equal(variable.numpy(), array)
    assert [first is second for first, second in pairwise(models)] == [True, False, False, True]


def test_what_a_file_does_not_set_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, file_values = saved(tmp_path / "one.keras", 1)
    loader = Loader()
    loader.load(path)
    monkeypatch.setattr(keras.Model, "load_weights", lambda *_: None)
    for variable, array in zip(loader.load(path).variables, file_values, strict=True):
        assert (variable.numpy() != array).all()


def test_bake_writes_every_bit(tmp_path: Path) -> None:
    """This includes -0.0, NaN, infinite and subnormal weights, and the state."""
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, name="hidden"), layers.BatchNormalization()]
    )
    odd = np.array([[-0.0, np.nan], [np.inf, 1e-45], [-np.inf, 1 / 3]], "float32")
    weights = {**values(model), NAME: odd}
    state = [np.full(v.shape, 3, "float32") for v in model.non_trainable_variables]
    loaded = save_and_reload(model, weights, state, tmp_path / "model.keras")
    assert loaded is not model
    assert same_weights(values(loaded), weights)
    for variable, value in zip(loaded.non_trainable_variables, state, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
