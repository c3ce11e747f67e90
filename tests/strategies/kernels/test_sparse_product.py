"""The compiled products against a dense kernel in double precision."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from masksweep.strategies.base import Array, Mask
from masksweep.strategies.kernels import sparse_product
from masksweep.strategies.kernels.products import TILE
from masksweep.strategies.kernels.structure import flat_indices, pack, unpack


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """Masks with rows and columns of any number of entries, from none to all."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    density = draw(st.sampled_from([0.0, 0.05, 0.3, 0.8, 1.0]))
    mask: Mask = np.random.default_rng(draw(st.integers(0, 99))).random(shape) < density
    mask[:: draw(st.integers(1, 3))] &= draw(st.booleans())
    mask[:, :: draw(st.integers(1, 3))] |= draw(st.booleans())
    return mask


def products(mask: Mask, x: Array, kernel: Array, upstream: Array) -> list[Array]:
    """Returns the outputs, the gradient of the inputs and the gradient of the values."""
    inputs, values = tf.constant(x), tf.constant(kernel.T[mask.T])
    with tf.GradientTape() as tape:
        tape.watch([inputs, values])
        outputs = sparse_product.multiply(inputs, values, pack(mask), mask.shape[1])
    gradients = tape.gradient(outputs, [inputs, values], output_gradients=tf.constant(upstream))
    return [np.asarray(array) for array in (outputs, *gradients)]


def expected_products(mask: Mask, *arrays: Array) -> list[Array]:
    """Returns what `products` returns, computed by a dense kernel in double precision."""
    x, kernel, upstream = (array.astype("float64") for array in arrays)
    kernel = np.where(mask, kernel, 0)
    return [x @ kernel, upstream @ kernel.T, (x.T @ upstream).T[mask.T]]


def numbers(generator: np.random.Generator, *shape: int, dtype: str) -> Array:
    return generator.normal(size=shape).astype(dtype)


@given(masks(), st.sampled_from([0, 1, 7, 64, TILE - 1, TILE, TILE + 3, 2 * TILE + 1]))
@settings(max_examples=60)
@pytest.mark.parametrize(("dtype", "digits"), [("float32", 2e-6), ("float64", 1e-14)])
def test_outputs_and_gradients(dtype: str, digits: float, mask: Mask, batch: int) -> None:
    generator = np.random.default_rng(batch)
    x = numbers(generator, batch, mask.shape[0], dtype=dtype)
    kernel = numbers(generator, *mask.shape, dtype=dtype)
    upstream = numbers(generator, batch, mask.shape[1], dtype=dtype)
    arrays = mask, x, kernel, upstream
    for actual, expected in zip(products(*arrays), expected_products(*arrays), strict=True):
        assert actual.dtype == dtype
        # the error of a sum grows with the size of its terms, not with the size of the sum
        limit = digits * (1 + max(mask.shape[0], mask.shape[1], batch)) ** 0.5 * 10
        np.testing.assert_allclose(actual, expected, rtol=0, atol=limit)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_the_number_of_threads_changes_no_bit(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    mask = generator.random((37, 29)) < np.linspace(0, 1, 29)
    arrays = [numbers(generator, *s, dtype="float32") for s in ((99, 37), (37, 29), (99, 29))]
    monkeypatch.setattr(sparse_product, "_threads", lambda: 1)
    expected = products(mask, *arrays)
    monkeypatch.setattr(sparse_product, "_threads", lambda: threads)
    for array, other in zip(products(mask, *arrays), expected, strict=True):
        assert array.tobytes() == other.tobytes()


def test_values_that_are_not_finite_reach_what_they_are_connected_to_and_nothing_else() -> None:
    mask = np.eye(4, dtype=bool)
    x, ones = np.ones((3, 4), "float32"), np.ones((3, 4), "float32")
    x[0, 1], x[1, 2] = np.nan, np.inf
    outputs, of_inputs, of_values = products(mask, x, np.ones((4, 4), "float32"), ones)
    np.testing.assert_array_equal(outputs, x)
    assert np.isfinite(of_inputs).all()
    np.testing.assert_array_equal(of_values, [3, np.nan, np.inf, 3])


def test_half_precision_is_computed_in_single_precision() -> None:
    mask = np.random.default_rng(0).random((30, 20)) < 0.5
    values = tf.Variable(tf.cast(np.linspace(-1, 1, mask.sum()), tf.bfloat16))
    x = tf.cast(np.linspace(-2, 2, 150).reshape(5, 30), tf.bfloat16)
    with tf.GradientTape() as tape:
        outputs = sparse_product.multiply(x, values.value(), pack(mask), 20)
    assert outputs.dtype == tf.float32
    assert tape.gradient(outputs, values).dtype == tf.bfloat16
    kernel = np.zeros(mask.T.shape, "float32")
    kernel[mask.T] = tf.cast(values, tf.float32)
    np.testing.assert_allclose(outputs, tf.cast(x, tf.float32) @ kernel.T, rtol=1e-5, atol=1e-5)


def test_no_gradient_of_the_inputs_is_computed_where_nothing_before_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mask, calls = np.ones((3, 2), bool), []
    backward = sparse_product._backward
    monkeypatch.setattr(
        sparse_product, "_backward", lambda *a, **k: calls.append(1) or backward(*a, **k)
    )

    @tf.function
    def gradients(x: Any, values: Any, of: str) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x, values])
            y = sparse_product.multiply(x, values, tf.constant(pack(mask)), 2)
        return tape.gradient(y, values if of == "values" else x)

    x, values = tf.ones((4, 3)), tf.ones(6)
    gradients(x, values, "values")
    assert not calls
    gradients(x, values, "inputs")
    assert calls


@given(masks())
@settings(max_examples=30)
def test_the_structure_has_each_entry_once_by_output_and_by_input(mask: Mask) -> None:
    inputs, outputs = mask.shape
    packed = pack(mask)
    assert (packed.dtype, len(packed)) == ("int32", inputs + outputs + 2 + 3 * mask.sum())
    structure = unpack(packed, inputs, outputs)
    by_output = np.repeat(np.arange(outputs), np.diff(structure.output_starts))
    by_input = np.repeat(np.arange(inputs), np.diff(structure.input_starts))
    np.testing.assert_array_equal(np.stack([by_output, structure.inputs], 1), np.argwhere(mask.T))
    np.testing.assert_array_equal(np.stack([by_input, structure.outputs], 1), np.argwhere(mask))
    np.testing.assert_array_equal(by_output[structure.positions], structure.outputs)
    flat = flat_indices(tf.constant(packed), inputs, outputs)
    np.testing.assert_array_equal(flat, structure.inputs * outputs + by_output)


SCRIPT = """
import numpy as np
from masksweep.strategies.kernels.products import sum_rows
starts, rows, result = np.array([0, 2], "int32"), np.array([0, 1], "int32"), np.zeros((1, 3), "f4")
sum_rows(starts, rows, rows, np.array([2, 3], "f4"), np.ones((2, 3), "f4"), result, 0, 1)
print(result.tolist(), sum(sum_rows.stats.cache_hits.values()))
"""


def compute_in_processes(count: int, **environment: str) -> list[str]:
    """Runs `SCRIPT` in several processes at the same time. Returns what each has written."""
    command = [sys.executable, "-c", SCRIPT]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
        for _ in range(count)
    ]
    outputs = [process.communicate()[0].strip() for process in processes]
    assert not any(process.returncode for process in processes)
    return outputs


@pytest.mark.slow  # each of the processes compiles
def test_processes_that_start_at_once_share_a_cache(tmp_path: Path) -> None:
    outputs = compute_in_processes(16, NUMBA_CACHE_DIR=str(tmp_path))
    assert {output[:18] for output in outputs} == {"[[5.0, 5.0, 5.0]] "}
    assert compute_in_processes(1, NUMBA_CACHE_DIR=str(tmp_path)) == ["[[5.0, 5.0, 5.0]] 2"]


def test_without_a_folder_that_can_be_written_each_process_compiles() -> None:
    only = "numba.core.caching.UserProvidedCacheLocator"
    environment = {"NUMBA_CACHE_DIR": "/dev/null", "NUMBA_CACHE_LOCATOR_CLASSES": only}
    assert compute_in_processes(1, **environment) == ["[[5.0, 5.0, 5.0]] 0"]
