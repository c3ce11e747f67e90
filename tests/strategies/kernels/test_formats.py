"""The products of each format against a dense kernel in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from masksweep.strategies.errors import Invalid
from masksweep.strategies.kernels import (
    binding,
    block,
    block_product,
    numpy_product,
    sparse_product,
)
from masksweep.strategies.kernels.binding import MODULES
from masksweep.strategies.kernels.products import TILES
from masksweep.strategies.kernels.sparse_product import multiply
from masksweep.strategies.kernels.structure import pack
from masksweep.strategies.plan import Array, Mask

LARGE, SMALL = TILES
BATCHES = [0, 1, 7, SMALL, SMALL + 1, 64, LARGE - 1, LARGE, LARGE + 3, 2 * LARGE + 1]


@st.composite
def masks(draw: st.DrawFn, format: str) -> Mask:
    """Masks that a format takes, with rows and columns of any number of entries."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    density = draw(st.sampled_from([0.0, 0.05, 0.3, 0.8, 1.0]))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    if format == "compact":
        return np.outer(*(generator.random(size) < density for size in shape)).astype(bool)
    if format == "block":
        sides = draw(st.tuples(st.integers(1, 9), st.integers(2, 9)))
        grid: Mask = generator.random([-(-size // 4) for size in shape]) < density
        return np.kron(grid, np.ones(sides)).astype(bool)
    mask: Mask = generator.random(shape) < density
    mask[:: draw(st.integers(1, 3))] &= draw(st.booleans())
    mask[:, :: draw(st.integers(1, 3))] |= draw(st.booleans())
    return mask


def mask_of(format: str) -> Mask:
    """Returns a mask of 48 inputs and 40 outputs."""
    generator = np.random.default_rng(0)
    if format == "compact":
        return np.outer(generator.random(48) < 0.5, generator.random(40) < 0.5)
    if format == "block":
        return np.kron(generator.random((6, 8)) < 0.5, np.ones((8, 5))).astype(bool)
    mask: Mask = generator.random((48, 40)) < np.linspace(0, 1, 40)
    return mask


def kept(format: str, mask: Mask, kernel: Array) -> Array:
    """Returns the kept entries of a kernel, in the order of the values of a format."""
    flat = MODULES[format].flat_indices(tf.constant(MODULES[format].pack(mask)), *mask.shape)
    values: Array = kernel.reshape(-1)[flat]
    return values


def products(format: str, mask: Mask, x: Array, kernel: Array, upstream: Array) -> list[Array]:
    """Returns the outputs, the gradient of the inputs and the gradient of the values."""
    module = MODULES[format]
    inputs, values = tf.constant(x), tf.constant(kept(format, mask, kernel))
    with tf.GradientTape() as tape:
        tape.watch([inputs, values])
        outputs = binding.multiply(format, inputs, values, module.pack(mask), mask.shape[1])
    gradients = tape.gradient(outputs, [inputs, values], output_gradients=tf.constant(upstream))
    return [np.asarray(array) for array in (outputs, *gradients)]


def expected_products(format: str, mask: Mask, *arrays: Array) -> list[Array]:
    """Returns what `products` returns, computed by a dense kernel in double precision."""
    x, kernel, upstream = (array.astype("float64") for array in arrays)
    kernel = np.where(mask, kernel, 0)
    return [x @ kernel, upstream @ kernel.T, kept(format, mask, x.T @ upstream)]


def numbers(generator: np.random.Generator, *shape: int, dtype: str = "float32") -> Array:
    return generator.normal(size=shape).astype(dtype)


@given(st.data(), st.sampled_from(BATCHES))
@settings(max_examples=40)
@pytest.mark.parametrize("format", MODULES)
@pytest.mark.parametrize(("dtype", "digits"), [("float32", 2e-6), ("float64", 1e-14)])
def test_outputs_and_gradients(
    dtype: str, digits: float, format: str, data: st.DataObject, batch: int
) -> None:
    mask, generator = data.draw(masks(format)), np.random.default_rng(batch)
    x = numbers(generator, batch, mask.shape[0], dtype=dtype)
    kernel = numbers(generator, *mask.shape, dtype=dtype)
    upstream = numbers(generator, batch, mask.shape[1], dtype=dtype)
    arrays = format, mask, x, kernel, upstream
    for actual, expected in zip(products(*arrays), expected_products(*arrays), strict=True):
        assert actual.dtype == dtype
        # the error of a sum grows with the size of its terms, not with the size of the sum
        limit = digits * (1 + max(mask.shape[0], mask.shape[1], batch)) ** 0.5 * 10
        np.testing.assert_allclose(actual, expected, rtol=0, atol=limit)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(1100, 60), (60, 1100)])
def test_a_kernel_with_several_bands(
    shape: tuple[int, int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy_product, "_threads", lambda: threads)
    generator = np.random.default_rng(0)
    mask = generator.random(shape) < 0.1
    x, upstream = (numbers(generator, 40, size, dtype="float64") for size in shape)
    arrays = "compiled", mask, x, numbers(generator, *shape, dtype="float64"), upstream
    for actual, expected in zip(products(*arrays), expected_products(*arrays), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-11)


def test_places_without_an_entry_have_no_part_in_a_product() -> None:
    generator, mask = np.random.default_rng(0), mask_of("compiled")
    packed, padded = pack(mask), pack(mask, places=int(mask.sum()) + 9)
    x, upstream = (tf.constant(numbers(generator, 70, size)) for size in mask.shape)
    values = tf.constant(numbers(generator, int(mask.sum())))
    with_places = tf.concat([values, np.full(9, np.nan, "float32")], axis=0)
    results = []
    for structure, variable in ((packed, values), (padded, with_places)):
        with tf.GradientTape() as tape:
            tape.watch([x, variable])
            outputs = multiply(x, variable, structure, mask.shape[1])
        results.append([outputs, *tape.gradient(outputs, [x, variable], upstream)])
    (*expected, of_values), (*actual, of_places) = results
    for one, other in zip(expected, actual, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(of_places, tf.concat([of_values, np.zeros(9, "float32")], 0))


@given(st.data())
@settings(max_examples=20)
@pytest.mark.parametrize("format", MODULES)
def test_the_values_are_the_kept_entries(format: str, data: st.DataObject) -> None:
    mask = data.draw(masks(format))
    packed = MODULES[format].pack(mask)
    assert packed.dtype == "int32"
    flat = np.asarray(MODULES[format].flat_indices(tf.constant(packed), *mask.shape))
    np.testing.assert_array_equal(np.sort(flat, axis=None), np.flatnonzero(mask))


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("format", ["compiled", "block"])
def test_the_number_of_threads_changes_no_bit(
    format: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, mask = np.random.default_rng(0), mask_of(format)
    arrays = [numbers(generator, *shape) for shape in ((99, 48), (48, 40), (99, 40))]
    monkeypatch.setattr(numpy_product, "_threads", lambda: 1)
    expected = products(format, mask, *arrays)
    monkeypatch.setattr(numpy_product, "_threads", lambda: threads)
    for array, other in zip(products(format, mask, *arrays), expected, strict=True):
        assert array.tobytes() == other.tobytes()


def test_values_that_are_not_finite_reach_what_they_are_connected_to_and_nothing_else() -> None:
    mask = np.eye(4, dtype=bool)
    x, ones = np.ones((3, 4), "float32"), np.ones((3, 4), "float32")
    x[0, 1], x[1, 2] = np.nan, np.inf
    kernel = np.ones((4, 4), "float32")
    outputs, of_inputs, of_values = products("compiled", mask, x, kernel, ones)
    np.testing.assert_array_equal(outputs, x)
    assert np.isfinite(of_inputs).all()
    np.testing.assert_array_equal(of_values, [3, np.nan, np.inf, 3])


@pytest.mark.parametrize("format", ["compiled", "block"])
def test_half_precision_is_computed_in_single_precision(format: str) -> None:
    mask, module = mask_of(format), MODULES[format]
    packed = tf.constant(module.pack(mask))
    values = tf.Variable(tf.cast(np.linspace(-1, 1, mask.sum()), tf.bfloat16))
    x = tf.cast(np.linspace(-2, 2, 240).reshape(5, 48), tf.bfloat16)
    with tf.GradientTape() as tape:
        outputs = binding.multiply(format, x, values.value(), packed, 40)
    assert outputs.dtype == tf.float32
    assert tape.gradient(outputs, values).dtype == tf.bfloat16
    kernel = np.zeros(mask.size, "float32")
    kernel[module.flat_indices(packed, 48, 40)] = tf.cast(values, tf.float32)
    expected = tf.cast(x, tf.float32) @ kernel.reshape(48, 40)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("format", "module"), [("compiled", sparse_product), ("block", block_product)]
)
def test_no_gradient_of_the_inputs_is_computed_where_nothing_before_trains(
    format: str, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask, calls = np.ones((3, 2), bool), []
    backward = module._backward
    monkeypatch.setattr(module, "_backward", lambda *a, **k: calls.append(1) or backward(*a, **k))

    @tf.function
    def gradients(x: Any, values: Any, of: str) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x, values])
            packed = tf.constant(MODULES[format].pack(mask))
            y = binding.multiply(format, x, values, packed, 2)
        return tape.gradient(y, values if of == "values" else x)

    x, values = tf.ones((4, 3)), tf.ones(6)
    gradients(x, values, "values")
    assert not calls
    gradients(x, values, "inputs")
    assert calls


@pytest.mark.parametrize("format", ["block", "compact"])
def test_a_format_packs_no_mask_that_does_not_fit(format: str) -> None:
    with pytest.raises(Invalid, match=f"^format={format}: must be another one: the mask has no "):
        MODULES[format].pack(np.eye(4, dtype=bool))


@pytest.mark.parametrize(
    ("grid", "sides"), [((8, 8), (32, 32)), ((5, 7), (16, 4)), ((3, 40), (9, 1)), ((6, 6), (2, 3))]
)
def test_the_shape_of_blocks_is_found_in_the_mask(
    grid: tuple[int, int], sides: tuple[int, int]
) -> None:
    kept_blocks = np.random.default_rng(1).random(grid) < 0.5
    assert block.block_shape(np.kron(kept_blocks, np.ones(sides)).astype(bool)) == sides
