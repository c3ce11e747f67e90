"""Tests of `sparse_tensor`: a layer with a sparse kernel is the layer with the masked kernel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from masksweep import strategies
from masksweep.strategies import Invalid
from masksweep.strategies.core import matrix_layers
from masksweep.strategies.core.matrix_layers import input_axes
from masksweep.strategies.core.weights import describe
from masksweep.strategies.plan import Array, Mask, MaskedWeight, Weight
from masksweep.strategies.sparse_tensor import SparseTensor
from tests.support.selection import slow

DOUBLE = "float64"
FORMATS = ["coo", "lookup", "compiled"]
MASKS = ["scattered", "empty", "full", "empty rows", "empty columns"]
CONVOLUTIONS = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}


def mask_of(kind: str, shape: tuple[int, ...], seed: int) -> Mask:
    """Returns a mask; rows are inputs of the layer, and columns its outputs."""
    mask = np.random.default_rng(seed).random(shape) < 0.5
    matrix = mask.reshape(-1, shape[-1])
    if kind == "empty rows":
        matrix[::2] = False
    if kind == "empty columns":
        matrix[:, shape[-1] // 2 :] = False
    return np.full(shape, kind == "full") if kind in ("empty", "full") else mask


def compute(call: Callable[[Any], Any], x: Any, weights: list[Any]) -> list[Array]:
    """Returns the outputs, and the gradients of a loss for the inputs and each of the weights."""
    with tf.GradientTape() as tape:
        tape.watch([x, *weights])
        outputs = call(x)
        factors = tf.reshape(tf.range(tf.size(outputs), dtype=x.dtype), tf.shape(outputs))
        loss = tf.reduce_sum(outputs * tf.sin(factors))  # another gradient for each output
    gradients = tape.gradient(loss, [x, *weights])
    return [np.asarray(tf.convert_to_tensor(array)) for array in (outputs, *gradients)]


def assert_the_layer_with_a_masked_kernel(
    layer: Any, size: tuple[int, ...], mask: str, format: str, unknown: int = 0
) -> None:
    """Compares outputs and gradients of a layer with a sparse kernel and with a masked one.

    It computes in double precision, so that an error is not taken for rounding.

    Args:
        layer: The layer, of dtype `float64`, which is not built.
        size: The shape of its inputs, without the batch.
        mask: One of `MASKS`.
        format: One of `FORMATS`.
        unknown: How many axes of the inputs, after the batch, have no size when it is traced.
    """
    generator = np.random.default_rng(len(size))
    x = tf.constant(generator.normal(size=(3, *size)))
    layer.build((None, *size))
    kernel = layer.kernel
    kept = mask_of(mask, tuple(kernel.shape), seed=sum(size))
    kernel.assign(np.where(kept, generator.normal(size=kept.shape), 0))
    if layer.bias is not None:
        layer.bias.assign(generator.normal(size=layer.bias.shape))

    binding = SparseTensor(format).bind()
    weight = Weight("layer/kernel", kept.shape, DOUBLE, "", input_axes=input_axes(layer))
    masked = MaskedWeight(weight, kept, np.zeros(kept.shape))
    masked = masked.with_outputs_last() if binding.outputs_last else masked
    m, h = binding.layout(masked.mask), tf.zeros(masked.mask.shape, x.dtype)
    v = binding.init(tf.reshape(kernel.value, h.shape), m, None)
    spec = tf.TensorSpec([None] * (1 + unknown) + list(x.shape[1 + unknown :]), x.dtype)

    @tf.function(input_signature=[spec])
    def call(x: Any) -> Any:
        return matrix_layers.call(layer, x, lambda rows: binding.matmul(rows, v, m, h))

    bias = [] if layer.bias is None else [layer.bias.value]
    outputs, x_gradient, *expected_bias, w_gradient = compute(layer, x, [*bias, kernel.value])
    assert call.get_concrete_function().outputs[0].shape.rank == outputs.ndim
    v_gradient = binding.init(
        w_gradient.reshape(h.shape), m, None
    )  # of the kept entries, in the order of v
    expected = [outputs, x_gradient, *expected_bias, v_gradient]
    for actual, wanted in zip(compute(call, x, [*bias, v]), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Draws the arguments of a convolution, and a size of its inputs."""
    rank = draw(st.integers(1, 3))

    def tuples(least: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
        return st.tuples(*[st.integers(least, most)] * rank)

    window, dilated = draw(tuples(1, 4 if rank < 3 else 2)), draw(st.booleans())
    dilation = draw(tuples(1, 3)) if dilated else (1,) * rank
    padding = draw(st.sampled_from(["valid", "same", *["causal"] * (rank == 1)]))
    size = draw(tuples(1, 9 if rank < 3 else 5))
    if padding == "valid":
        spans = [(n - 1) * d + 1 for n, d in zip(window, dilation, strict=True)]
        size = tuple(max(pair) for pair in zip(size, spans, strict=True))
    strides = (1,) * rank if dilated else draw(tuples(1, 3))
    if rank == 3:  # TensorFlow 2.21 is wrong on a CPU if a stride is longer than the window
        strides = tuple(min(pair) for pair in zip(strides, window, strict=True))
    arguments = {
        "dtype": DOUBLE,
        "filters": draw(st.integers(1, 4)),
        "kernel_size": window,
        "strides": strides,
        "padding": padding,
        "dilation_rate": dilation,
        "use_bias": draw(st.booleans()),
        "activation": draw(st.sampled_from([None, "tanh"])),
    }
    return arguments, (*size, draw(st.integers(1, 3)))


@given(convolutions(), st.sampled_from(MASKS), st.sampled_from(FORMATS), st.booleans())
@settings(max_examples=30)
def test_a_convolution(drawn: Any, mask: str, format: str, sizes_are_known: bool) -> None:
    arguments, size = drawn
    rank = len(arguments["kernel_size"])
    layer, unknown = CONVOLUTIONS[rank](**arguments), 0 if sizes_are_known else rank
    assert_the_layer_with_a_masked_kernel(layer, size, mask, format, unknown)


EQUATIONS = {
    "abc,cd->abd": ((5, 3), (5, 4), "d"),
    "abc,cde->abde": ((5, 3), (5, 2, 4), "de"),
    "abcd,cde->abe": ((5, 3, 2), (5, 4), "e"),
    "abcd,cdef->abef": ((5, 3, 2), (5, 4, 3), None),
    "...x,xy->...y": ((5, 3), 4, "y"),
    "ab,bcde->acde": ((6,), (2, 3, 4), "ce"),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("mask", MASKS)
def test_dense_and_einsum(mask: str, format: str) -> None:
    assert_the_layer_with_a_masked_kernel(
        layers.Dense(4, "tanh", dtype=DOUBLE), (2, 5, 3), mask, format
    )
    for equation, (size, output_shape, bias_axes) in EQUATIONS.items():
        layer = layers.EinsumDense(equation, output_shape, "tanh", bias_axes, dtype=DOUBLE)
        assert_the_layer_with_a_masked_kernel(layer, size, mask, format)


@pytest.mark.parametrize("format", ["coo", slow("lookup"), "compiled"])
def test_layers_inside_other_layers_and_models(format: str) -> None:
    """A masked model computes what the plain model with the same weights computes."""
    keras.utils.set_random_seed(0)
    start = keras.Input((None, 6, 6, 2))  # frames of a video, whose number is not known
    inner = keras.Sequential([layers.Conv2D(3, 3, activation="relu"), layers.Flatten()])
    y = layers.TimeDistributed(inner)(start)
    y = layers.Conv1D(4, 2, padding="causal", dilation_rate=2)(y)
    y = layers.MultiHeadAttention(2, 3)(y, y)
    model = keras.Model(start, layers.Dense(1)(y))
    masked = strategies.apply(
        model, strategies.Random(0.5), SparseTensor(format), targets="*/kernel"
    )
    assert {len(w.shape) for w in describe(model) if w.is_kernel} == {2, 3, 4}
    masked.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(8, 4, 6, 6, 2)).astype("float32")
    masked.fit(x, np.ones((8, 4, 1)), epochs=2, verbose=0)
    report = strategies.audit(masked)
    assert report.ok, report
    np.testing.assert_allclose(masked(x), masked.export_plain()(x), atol=1e-5)


def test_the_heads_of_attention_follow_a_schedule_and_go_on_after_loading(tmp_path: Path) -> None:
    """Their kernels have two axes of outputs, or of inputs, and compiled products need a matrix."""
    x = np.random.default_rng(0).normal(size=(32, 6, 8)).astype("float32")

    def begun(strategy: Any) -> Any:
        keras.utils.set_random_seed(0)
        start = keras.Input((6, 8))
        y = layers.MultiHeadAttention(4, 8, name="heads")(start, start)
        masked = strategies.apply(
            keras.Model(start, y), strategies.Random(0.75), strategy, targets="*/kernel",
            schedule=strategies.SET(frequency=2), seed=0,
        )  # fmt: skip
        masked.compile(keras.optimizers.Adam(0.01), "mse")
        return masked

    def train(masked: Any, epoch: int) -> Any:
        masked.fit(x, -x, batch_size=8, shuffle=False, verbose=0, initial_epoch=epoch,
                   epochs=epoch + 1)  # fmt: skip
        return masked

    compiled, multiplied = (train(begun(s), 0) for s in (SparseTensor("compiled"), "weight_mask"))
    assert strategies.audit(compiled).ok
    for ours, theirs in zip(
        compiled.export_plain().weights, multiplied.export_plain().weights, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    compiled.save(tmp_path / "heads.keras")
    loaded = train(keras.models.load_model(tmp_path / "heads.keras"), 1)
    expected = train(compiled, 1).export_plain().get_weights()
    assert strategies.audit(loaded).ok
    for ours, theirs in zip(loaded.export_plain().get_weights(), expected, strict=True):
        assert np.array_equal(ours, theirs)


def kernel_of(layer: Any, *size: int) -> Any:
    layer.name = "layer"
    return keras.Sequential([keras.Input(size), layer, layers.Flatten(), layers.Dense(1)])


class OwnConvolution(layers.Conv1D):  # type: ignore[misc]
    """A layer that computes in another way than the layer of Keras whose name it has."""


OwnConvolution.__name__ = "Conv1D"

NO_PRODUCT: dict[str, tuple[Any, tuple[int, ...]]] = {
    "its layer has groups=2, so it multiplies by several matrices": (
        layers.Conv2D(4, 2, groups=2), (4, 4, 2),
    ),
    "its layer has data_format=channels_first, must be channels_last": (
        layers.Conv1D(4, 2, data_format="channels_first"), (2, 6),
    ),
    "its equation abc,bcd->abd is not a product of the last axes": (
        layers.EinsumDense("abc,bcd->abd", (5, 4)), (5, 3),
    ),
    "its equation abc,dc->abd is not a product of the last axes": (
        layers.EinsumDense("abc,dc->abd", (5, 4)), (5, 3),
    ),
    "its equation abb,bc->abc is not a product of the last axes": (
        layers.EinsumDense("abb,bc->abc", (3, 4)), (3, 3),
    ),
    "its layer is not a keras.layers.Conv1D, but another class": (OwnConvolution(4, 2), (6, 2)),
    "only kernels of Dense, EinsumDense, Conv1D, Conv2D, Conv3D can be sparse matrices": (
        layers.Conv1DTranspose(4, 2), (6, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", NO_PRODUCT)
def test_what_is_no_product_with_a_matrix_is_refused(reason: str) -> None:
    model = kernel_of(NO_PRODUCT[reason][0], *NO_PRODUCT[reason][1])
    with pytest.raises(Invalid, match=f"^strategy=sparse_tensor: layer/kernel: {reason}"):
        strategies.apply(model, strategies.Random(0.5), "sparse_tensor", targets="layer/kernel")
