"""The count of multiply-adds, compared with TensorFlow's own count and with brute force."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from masksweep.strategies import Invalid
from masksweep.strategies.core.audit import same_bits
from masksweep.strategies.core.flops import flops, positions

PRODUCTS = ["MatMul", "BatchMatMulV2", "BatchMatMulV3", "Conv2D", "Conv3D",
            "Conv2DBackpropInput", "DepthwiseConv2dNative"]  # fmt: skip
"""Operations with weights whose FLOPs TensorFlow counts."""


def model_of(layer: Any, shape: tuple[int, ...]) -> Any:
    return keras.Sequential([keras.Input(shape), layer])


def total(model: Any, inputs: Any = None) -> int:
    """Returns the FLOPs of all weights."""
    sizes = {variable_name(model, v): prod(v.shape) for v in model.trainable_variables}
    counts = positions(model, inputs)
    assert counts.keys() == sizes.keys()
    found = [flops(count, sizes[name]) for name, count in counts.items()]
    assert None not in found
    return sum(found)


def variable_name(model: Any, variable: Any) -> str:
    from masksweep.strategies.core.weights import owners

    return owners(model)[id(variable)][0]


def known(model: Any, inputs: Any = None) -> dict[str, int | None]:
    """Returns the positions of the weights that have any, or for which they are unknown."""
    return {name: p for name, p in positions(model, inputs).items() if p != 0}


def profiled(model: Any, shape: tuple[int, ...]) -> int:
    """Returns the FLOPs of products as TensorFlow counts them, for a batch of one sample."""
    spec = tf.TensorSpec((1, *shape))
    graph = tf.function(model, autograph=False).get_concrete_function(spec).graph
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    options = options.with_accounted_types(PRODUCTS).with_empty_output()
    return int(profiler.profile(graph, cmd="op", options=options.build()).total_float_ops)


# -- TensorFlow's own count --------------------------------------------------------------------

COUNTED_BY_TENSORFLOW: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "dense": (lambda: layers.Dense(4), (12,)),
    "dense on a sequence": (lambda: layers.Dense(4), (5, 12)),
    "dense on images": (lambda: layers.Dense(4), (5, 3, 12)),
    "einsum": (lambda: layers.EinsumDense("abc,cde->abde", (6, 4, 3)), (6, 8)),
    "einsum with two inner axes": (lambda: layers.EinsumDense("abcd,cde->abe", (6, 3)), (6, 4, 8)),
    "conv1d": (lambda: layers.Conv1D(4, 3), (9, 2)),
    "conv1d strided": (lambda: layers.Conv1D(4, 3, strides=2, padding="same"), (9, 2)),
    "conv1d causal": (lambda: layers.Conv1D(4, 3, padding="causal"), (9, 2)),
    "conv2d": (lambda: layers.Conv2D(4, (2, 3)), (9, 8, 2)),
    "conv2d same": (lambda: layers.Conv2D(4, (2, 3), padding="same"), (9, 8, 2)),
    "conv2d strided": (lambda: layers.Conv2D(4, 3, strides=(2, 3)), (9, 8, 2)),
    "conv2d strided same": (lambda: layers.Conv2D(4, 3, strides=2, padding="same"), (9, 8, 2)),
    # sizes that TensorFlow does not pad when it divides the inputs by the dilation
    "conv2d dilated": (lambda: layers.Conv2D(4, 2, dilation_rate=2), (10, 8, 2)),
    "conv3d": (lambda: layers.Conv3D(4, 2), (4, 5, 6, 2)),
    "conv3d strided same": (lambda: layers.Conv3D(4, 3, strides=2, padding="same"), (4, 5, 6, 2)),
    # with padding="valid" TensorFlow also counts products with inputs beyond the border
    "conv1d transpose": (lambda: layers.Conv1DTranspose(4, 3, padding="same"), (9, 2)),
    "conv2d transpose": (lambda: layers.Conv2DTranspose(4, 3, padding="same"), (9, 8, 2)),
    "conv2d transpose strided": (
        lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same"),
        (9, 8, 2),
    ),
    "depthwise1d": (lambda: layers.DepthwiseConv1D(3, depth_multiplier=2), (9, 2)),
    "depthwise2d": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (9, 8, 2)),
    "depthwise2d strided": (
        lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"),
        (9, 8, 2),
    ),
    "separable1d": (lambda: layers.SeparableConv1D(4, 3, depth_multiplier=2), (9, 2)),
    "separable2d": (lambda: layers.SeparableConv2D(4, 3, padding="same"), (9, 8, 2)),
    "separable2d strided": (lambda: layers.SeparableConv2D(4, 3, strides=2), (9, 8, 2)),
    # TensorFlow counts the body of a loop once, so the steps are unrolled
    "simple rnn": (lambda: layers.SimpleRNN(4, unroll=True), (6, 3)),
    "lstm": (lambda: layers.LSTM(4, unroll=True, return_sequences=True), (6, 3)),
    "gru": (lambda: layers.GRU(4, unroll=True), (6, 3)),
    "gru, reset before": (lambda: layers.GRU(4, unroll=True, reset_after=False), (6, 3)),
    "bidirectional": (
        lambda: layers.Bidirectional(layers.GRU(4, unroll=True), merge_mode="sum"),
        (6, 3),
    ),
    "conv lstm": (lambda: layers.ConvLSTM1D(4, 2, unroll=True), (6, 7, 3)),
    "conv lstm strided": (
        lambda: layers.ConvLSTM2D(4, 3, strides=2, padding="same", unroll=True),
        (2, 7, 6, 3),
    ),
    "time distributed": (lambda: layers.TimeDistributed(layers.Conv1D(4, 3)), (6, 7, 3)),
    "spectral normalization": (lambda: layers.SpectralNormalization(layers.Dense(4)), (12,)),
    "batch norm": (layers.BatchNormalization, (12,)),
    "layer norm over two axes": (lambda: layers.LayerNormalization(axis=[1, 2]), (5, 12)),
    "prelu": (layers.PReLU, (5, 12)),
}


@pytest.mark.parametrize("name", COUNTED_BY_TENSORFLOW)
def test_it_is_tensorflows_own_count(name: str) -> None:
    make, shape = COUNTED_BY_TENSORFLOW[name]
    model = model_of(make(), shape)
    assert total(model) == profiled(model, shape)
    assert (total(model) > 0) == (name not in ("batch norm", "layer norm over two axes", "prelu"))


@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.LSTM, layers.GRU])
def test_the_loop_of_a_recurrent_layer_counts_as_its_unrolled_steps(kind: Any) -> None:
    model, unrolled = (model_of(kind(4, unroll=unroll), (6, 3)) for unroll in (False, True))
    assert total(model) == total(unrolled) == profiled(unrolled, (6, 3)) > profiled(model, (6, 3))


def test_a_whole_network() -> None:
    shape = (12, 12, 3)
    start = keras.Input(shape)
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(start)
    y = layers.BatchNormalization()(layers.SeparableConv2D(8, 3, padding="same")(y))
    y = layers.MaxPooling2D()(layers.Add()([y, layers.Conv2D(8, 1)(start)]))
    y = layers.Reshape((6, 48))(y)
    y = layers.Dense(10)(layers.Dropout(0.5)(layers.GRU(5, unroll=True)(y)))
    model = keras.Model(start, y)
    assert total(model) == profiled(model, shape)


# -- brute force -------------------------------------------------------------------------------


def applications(layer: Any, shape: tuple[int, ...]) -> Any:
    """Returns how often a layer without bias multiplies each entry of its kernel.

    With inputs of 1, the sum of the outputs is the sum over all products of the kernel's entry,
    so its derivative by an entry is the number of these products.
    """
    with tf.GradientTape() as tape:
        outputs = tf.reduce_sum(layer(tf.ones((1, *shape))))
    return tape.gradient(outputs, layer.kernel.value).numpy()


BY_BRUTE_FORCE: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "dense": (lambda: layers.Dense(4, use_bias=False), (5, 3, 12)),
    "einsum": (lambda: layers.EinsumDense("abc,cd->abd", (6, 4)), (6, 8)),
    "einsum, kernel transposed": (lambda: layers.EinsumDense("abc,dc->abd", (6, 4)), (6, 8)),
    "einsum with an ellipsis": (lambda: layers.EinsumDense("...b,bc->...c", (3, 5, 4)), (3, 5, 8)),
    "einsum, ellipsis right": (lambda: layers.EinsumDense("ab...,bc->ac...", (4,)), (3, 5, 8)),
    "einsum that sums an axis": (lambda: layers.EinsumDense("abc,cd->ad", (4,)), (6, 8)),
    "einsum for each head": (lambda: layers.EinsumDense("abc,bcd->abd", (6, 4)), (6, 8)),
    "einsum to one number": (lambda: layers.EinsumDense("abc,bc->a", ()), (6, 8)),
    "conv2d in groups": (lambda: layers.Conv2D(4, 2, groups=2, use_bias=False), (5, 4, 6)),
    "conv1d dilated": (lambda: layers.Conv1D(4, 3, dilation_rate=3, use_bias=False), (11, 2)),
    "conv2d dilated": (lambda: layers.Conv2D(4, 2, dilation_rate=3, use_bias=False), (9, 7, 2)),
    "conv3d dilated": (
        lambda: layers.Conv3D(2, 2, dilation_rate=(1, 2, 1), use_bias=False),
        (3, 6, 4, 2),
    ),
    "conv1d transpose": (lambda: layers.Conv1DTranspose(4, 3, use_bias=False), (6, 2)),
    "conv2d transpose": (
        lambda: layers.Conv2DTranspose(4, 3, strides=2, use_bias=False),
        (9, 8, 2),
    ),
    "conv3d transpose": (
        lambda: layers.Conv3DTranspose(2, 3, strides=2, use_bias=False),
        (2, 3, 4, 2),
    ),
    "conv1d transpose dilated": (
        lambda: layers.Conv1DTranspose(4, 3, dilation_rate=2, use_bias=False),
        (6, 2),
    ),
    "conv2d transpose with gaps": (
        lambda: layers.Conv2DTranspose(4, 2, strides=3, use_bias=False),
        (3, 4, 2),
    ),
    "depthwise2d dilated": (
        lambda: layers.DepthwiseConv2D(2, dilation_rate=2, use_bias=False),
        (9, 7, 2),
    ),
}


@pytest.mark.parametrize("name", BY_BRUTE_FORCE)
def test_each_entry_is_multiplied_as_often_as_is_said(name: str) -> None:
    make, shape = BY_BRUTE_FORCE[name]
    layer = make()
    (count,) = known(model_of(layer, shape)).values()
    try:
        layer(np.zeros((1, *shape)))
    except tf.errors.InvalidArgumentError as error:
        # TensorFlow has it only with oneDNN, which it does not use on all processors
        if "do not yet support dilation rates" not in str(error):
            raise
        pytest.skip("TensorFlow cannot compute this layer on this processor")
    counted = applications(layer, shape)
    assert counted.shape == layer.kernel.shape
    np.testing.assert_array_equal(counted, count)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["same", "causal"])
def test_padding_counts_as_inputs(padding: str, strides: int) -> None:
    layer = layers.Conv1D(4, 3, padding=padding, strides=strides, use_bias=False)
    (count,) = known(model_of(layer, (9, 2))).values()
    at_the_edge = applications(layer, (9, 2))
    assert at_the_edge.max() == count == -(-9 // strides)
    assert at_the_edge.min() == count - 1 - (padding == "causal" and strides == 1)
    padded = layers.Conv1D(4, 3, strides=strides, use_bias=False)
    np.testing.assert_array_equal(applications(padded, (11, 2)), count)


def test_channels_first() -> None:
    layer = layers.Conv2D(4, (2, 3), data_format="channels_first")
    assert list(known(model_of(layer, (2, 9, 8))).values()) == [8 * 6]
    layer = layers.Conv2DTranspose(4, 3, data_format="channels_first")
    assert list(known(model_of(layer, (2, 9, 8))).values()) == [9 * 8]


# -- layers inside of layers -------------------------------------------------------------------


def test_cells_on_each_other_count_as_layers_on_each_other() -> None:
    cells = [layers.LSTMCell(4, name="low"), layers.GRUCell(5, name="high")]
    one = model_of(layers.RNN(cells), (6, 3))
    low, high = layers.LSTM(4, unroll=True, return_sequences=True), layers.GRU(5, unroll=True)
    two = keras.Sequential([keras.Input((6, 3)), low, high])
    assert total(one) == total(two) == profiled(two, (6, 3))


@keras.saving.register_keras_serializable(package="tests")
class MinimalCell(layers.Layer):  # type: ignore[misc]
    """The cell in the documentation of `keras.layers.RNN`."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.recurrent_kernel = self.add_weight(shape=(self.units, self.units), name="recurrent")

    def call(self, inputs: Any, states: Any) -> Any:
        output = ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.recurrent_kernel)
        return output, [output]


class CellOfLayers(layers.Layer):  # type: ignore[misc]
    """A cell that calls a Dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.state_size, self.dense = 4, layers.Dense(4, name="dense")

    def build(self, input_shape: Any) -> None:
        self.dense.build((None, input_shape[-1] + 4))

    def call(self, inputs: Any, states: Any) -> Any:
        output = self.dense(ops.concatenate([inputs, states[0]], axis=-1))
        return output, [output]


def test_cells_of_ones_own() -> None:
    assert list(known(model_of(layers.RNN(MinimalCell(4)), (6, 3))).values()) == [6, 6]
    assert list(known(model_of(layers.RNN(CellOfLayers()), (6, 3))).values()) == [6]
    both = layers.Bidirectional(layers.RNN(MinimalCell(4), return_sequences=True))
    assert list(known(model_of(layers.TimeDistributed(both), (5, 6, 3))).values()) == [30] * 4


@pytest.mark.parametrize(
    "heads", [{"num_heads": 2}, {"num_query_heads": 4, "num_key_value_heads": 2}]
)
def test_attention(heads: dict[str, int]) -> None:
    size = "key_dim" if "num_heads" in heads else "head_dim"
    kind = layers.MultiHeadAttention if "num_heads" in heads else layers.GroupQueryAttention
    start, context = keras.Input((6, 8), name="start"), keras.Input((5, 8), name="context")
    attention = kind(**heads, **{size: 7}, name="attention")
    model = keras.Model([start, context], attention(start, context))
    queries, keys = next(iter(heads.values())), list(heads.values())[-1]
    counts = known(model)
    names = [f"attention/{part}/kernel" for part in ("query", "key", "value", "attention_output")]
    assert counts == dict(zip(names, [6, 5, 5, 6], strict=True))
    shapes = {variable_name(model, v): tuple(v.shape) for v in model.trainable_variables}
    assert [prod(shapes[name]) for name in names] == [
        8 * queries * 7, 8 * keys * 7, 8 * keys * 7, queries * 7 * 8
    ]  # fmt: skip


def test_layers_that_are_nested_and_shared() -> None:
    shared = layers.Dense(4, name="shared")
    low = keras.Sequential(
        [keras.Input((6, 4)), shared, layers.Conv1D(4, 2, name="conv")], name="low"
    )
    start = keras.Input((6, 4))
    steps = layers.TimeDistributed(low, name="steps")(layers.Reshape((1, 6, 4))(shared(start)))
    end = layers.Dense(1, name="end")(low(shared(shared(start))))
    model = keras.Model(start, [steps, end])
    assert known(model) == {"shared/kernel": 5 * 6, "low/conv/kernel": 2 * 5, "end/kernel": 5}


def test_a_layer_in_the_batch_axis_counts_for_each_part_of_a_sample() -> None:
    start = keras.Input((3, 5, 4))
    rows = layers.Lambda(lambda x: ops.reshape(x, (-1, 5, 4)))(start)
    model = keras.Model(start, layers.Dense(2, name="dense")(rows))
    assert known(model) == {"dense/kernel": 15}


class Block(keras.Model):  # type: ignore[misc]
    """A subclassed model with a dict of inputs, a weight of its own and a branch in Python."""

    def __init__(self) -> None:
        super().__init__(name="block")
        self.parts = {"a": layers.Dense(4, name="a"), "b": layers.Dense(4, name="b")}
        self.mix = self.add_weight(shape=(4, 3), name="mix")
        self.unused = self.add_weight(shape=(4, 3), name="unused")

    def call(self, inputs: Any, training: Any = None) -> Any:
        y = self.parts["a"](inputs["x"]) + self.parts["b"](inputs["y"])[:, None]
        return y @ self.mix if not training else y


def test_a_subclassed_model() -> None:
    model = Block()
    model({"x": np.ones((7, 5, 2)), "y": np.ones((7, 3))})
    assert known(model) == {"a/kernel": 5, "b/kernel": 1, "mix": 5}
    longer = {"x": np.ones((1, 9, 2)), "y": np.ones((1, 3))}
    assert known(model, longer) == {"a/kernel": 9, "b/kernel": 1, "mix": 9}


# -- weights that are not those of a layer of Keras --------------------------------------------


class Own(layers.Layer):  # type: ignore[misc]
    """A layer that computes with its weights as it is told."""

    def __init__(self, function: Callable[..., Any], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function, self.shapes = function, shapes

    def build(self, input_shape: Any) -> None:
        self.own = [self.add_weight(shape=s, name=f"w{i}") for i, s in enumerate(self.shapes)]

    def call(self, inputs: Any) -> Any:
        return self.function(inputs, *self.own)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (None, 1)


OWN: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]], list[int | None]]] = {
    "matmul": (lambda x, w: ops.matmul(x, w), [(8, 4)], [6]),
    "matmul, transposed": (lambda x, w: ops.matmul(x, ops.transpose(w)), [(4, 8)], [6]),
    "tf.matmul": (lambda x, w: tf.matmul(w, x, transpose_b=True), [(4, 8)], [6]),
    "tf.tensordot": (lambda x, w: tf.tensordot(x, w, [[1, 2], [1, 0]]), [(8, 6, 4)], [1]),
    "dot": (lambda x, w: ops.dot(x, w), [(8, 4)], [6]),
    "a vector": (lambda x, w: ops.matmul(x, w), [(8,)], [6]),
    "einsum": (lambda x, w: ops.einsum("abc,cde->abde", x, w), [(8, 4, 3)], [6]),
    "tf.einsum": (lambda x, w: tf.einsum("xbc,dbc->xd", x, w), [(4, 6, 8)], [1]),
    "twice": (lambda x, w: x @ w + ops.relu(x) @ w, [(8, 4)], [12]),
    "scaled": (lambda x, w: x @ ops.cast(w * 0.5, "float32"), [(8, 4)], [6]),
    "two after each other": (lambda x, a, b: x @ a @ b, [(8, 2), (2, 4)], [6, 6]),
    "positions added": (lambda x, w: x + w, [(6, 8)], [0]),
    "a token in front": (
        lambda x, w: ops.concatenate([ops.broadcast_to(w, (ops.shape(x)[0], 1, 8)), x], 1),
        [(1, 1, 8)],
        [0],
    ),
    "a scale for each channel": (lambda x, w: x * w, [(8,)], [0]),
    "looked up": (lambda x, w: ops.take(w, ops.argmax(x, -1), axis=0), [(8, 4)], [0]),
    "not used": (lambda x, w: x, [(8, 4)], [0]),
    "of weights alone": (lambda x, a, b: x + a @ b, [(6, 3), (3, 8)], [0, 0]),
    # what may be a product in disguise, or with a part of the entries, is unknown
    "elementwise": (lambda x, w: x * w, [(6, 8)], [None]),
    "a sum of products": (
        lambda x, w: ops.sum(ops.expand_dims(x, -1) * w, axis=2),
        [(8, 4)],
        [None],
    ),
    "a part of the kernel": (lambda x, w: x @ w[:, :2], [(8, 4)], [None]),
    "a kernel that is not zero where its weight is": (
        lambda x, w: x @ ops.exp(w),
        [(8, 4)],
        [None],
    ),
    "an ellipsis in the kernel": (
        lambda x, w: tf.einsum("a...b,...bc->a...c", x, w),
        [(6, 8, 4)],
        [None],
    ),
    "an axis of the kernel that is repeated": (
        lambda x, w: tf.einsum("abc,cc->abc", x, w),
        [(8, 8)],
        [None],
    ),
    "two factors": (lambda x, a, b: x @ (a @ b), [(8, 2), (2, 4)], [None, None]),
    "a convolution": (lambda x, w: ops.conv(x, w), [(3, 8, 4)], [None]),
    "in a loop": (
        lambda x, w: ops.fori_loop(0, 3, lambda i, y: y @ w, x),
        [(8, 8)],
        [None],
    ),
    "in a condition": (
        lambda x, w: ops.cond(ops.sum(x) > 0, lambda: x @ w, lambda: x),
        [(8, 8)],
        [None],
    ),
    "a size that depends on values": (
        lambda x, w: tf.boolean_mask(x, x[..., 0] > 0) @ w,
        [(8, 4)],
        [None],
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_weights_that_a_layer_computes_with_itself(name: str) -> None:
    function, shapes, expected = OWN[name]
    model = model_of(Own(function, *shapes), (6, 8))
    assert list(positions(model).values()) == expected


class TwoHalves(layers.Dense):  # type: ignore[misc]
    def build(self, input_shape: Any) -> None:
        super().build((*input_shape[:-1], input_shape[-1] // 2))
        self.input_spec = None

    def call(self, inputs: Any, training: Any = None) -> Any:
        return super().call(inputs[..., ::2]) + super().call(inputs[..., 1::2])


class Transposed(layers.Dense):  # type: ignore[misc]
    """A Dense layer whose kernel is that of another one, transposed."""

    def build(self, input_shape: Any) -> None:
        self.bias, self.built = None, True

    @property
    def kernel(self) -> Any:
        return ops.transpose(self.other[0].kernel)


def test_a_subclass_with_a_call_or_a_kernel_of_its_own_is_not_counted_as_its_base() -> None:
    assert list(known(model_of(TwoHalves(4), (5, 6))).values()) == [10]
    there, back = layers.Dense(4, name="there"), Transposed(6, name="back")
    back.other = (there,)
    model = keras.Sequential([keras.Input((5, 6)), there, back])
    assert known(model) == {"there/kernel": 10}


def test_a_layer_that_is_called_again_in_the_backward_pass_counts_once() -> None:
    with keras.RematScope(mode="full"):
        layer = layers.Dense(4, name="dense")
    assert known(model_of(layer, (5, 6))) == {"dense/kernel": 5}


def test_mixed_precision() -> None:
    stack = [
        layers.Dense(4, dtype="mixed_bfloat16"),
        layers.GRU(3, dtype="mixed_float16", return_sequences=True),
        Own(OWN["matmul"][0], (3, 2)),
    ]
    model = keras.Sequential([keras.Input((5, 6)), *stack])
    assert list(known(model).values()) == [5, 5, 5, 5]


class Tied(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.words, self.dense = layers.Embedding(9, 4, name="words"), layers.Dense(4, name="dense")

    def call(self, inputs: Any) -> Any:
        return self.dense(self.words(inputs)) @ ops.transpose(self.words.embeddings)


def test_an_embedding_is_a_look_up_unless_it_is_also_an_output() -> None:
    assert known(model_of(layers.Embedding(9, 4), (6,))) == {}
    tied = Tied()
    tied(np.zeros((2, 6), "int32"))
    assert known(tied) == {"words/embeddings": 6, "dense/kernel": 6}
    start = keras.Input((6,), dtype="int32")
    for tie in (True, False):
        words = layers.ReversibleEmbedding(9, 4, tie_weights=tie, name="words")
        model = keras.Model(start, words(words(start), reverse=True))
        assert known(model) == {f"words/{'embeddings' if tie else 'reverse_embeddings'}": 6}


# -- LoRA --------------------------------------------------------------------------------------

FACTORS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]] = {
    # a layer, and the layers of its two factors, in the order in which they are applied
    "query": (
        ("abc,cde->abde", (6, 4, 3)),
        ("abc,cdr->abdr", (6, 4, 2)),
        ("abdr,re->abde", (6, 4, 3)),
    ),
    "output": (("abcd,cde->abe", (6, 3)), ("abcd,cdr->abr", (6, 2)), ("abr,re->abe", (6, 3))),
    "transposed": (("abc,dc->abd", (6, 4)), ("abc,rc->abr", (6, 2)), ("abr,dr->abd", (6, 4))),
}


@pytest.mark.parametrize("name", FACTORS)
def test_the_factors_of_lora_count_as_layers_after_each_other(name: str) -> None:
    whole, *both = FACTORS[name]
    shape = (6, 8) if len(whole[0].split(",")[0]) == 3 else (6, 4, 8)
    layer = layers.EinsumDense(*whole, name="dense")
    model = model_of(layer, shape)
    layer.enable_lora(2)
    steps = keras.Sequential([keras.Input(shape), *(layers.EinsumDense(*step) for step in both)])
    factors = list(known(steps).values())
    kernels = [layer.lora_kernel_a, layer.lora_kernel_b]
    if name == "transposed":
        factors.reverse()
    assert {tuple(k.shape) for k in kernels} >= {
        tuple(s.kernel.shape) for s in steps.layers if name != "transposed"
    }
    assert known(model) == {
        "dense/kernel": 6,
        "dense/lora_kernel_a": factors[0],
        "dense/lora_kernel_b": factors[1],
    }


def test_lora_in_other_layers() -> None:
    dense, conv = layers.Dense(4, name="dense"), layers.Conv1D(4, 3, name="conv")
    words = layers.Embedding(9, 4, name="words")
    model = keras.Sequential([keras.Input((6,), dtype="int32"), words, conv, dense])
    for layer in model.layers:
        layer.enable_lora(2)
    assert known(model) == {
        "words/lora_embeddings_b": 6,  # applied to the rows of the first one that are looked up
        **{f"conv/{kernel}": 4 for kernel in ("kernel", "lora_kernel_a", "lora_kernel_b")},
        **{f"dense/{kernel}": 4 for kernel in ("kernel", "lora_kernel_a", "lora_kernel_b")},
    }
    both_ways = layers.EinsumDense("abc,bc->abc", (6, 4), name="dense")
    model = model_of(both_ways, (6, 4))
    both_ways.enable_lora(2)
    assert list(known(model).values()) == [1, None, None]


# -- the inputs --------------------------------------------------------------------------------


def test_a_free_length_must_be_given() -> None:
    model = model_of(layers.Dense(4, name="dense"), (None, 3))
    with pytest.raises(
        Invalid, match=r"^inputs=shape \(None, None, 3\): has unknown sizes; to cou"
    ):
        positions(model)
    assert known(model, keras.Input((20, 3))) == known(model, np.ones((7, 20, 3)))
    assert known(model, tf.ones((2, 20, 3))) == {"dense/kernel": 20}


def test_a_model_that_does_not_tell_its_inputs() -> None:
    class Later(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="later")
            self.dense = layers.Dense(4, name="dense")
            self.dense.build((None, 3))
            self.built = True

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

    with pytest.raises(Invalid, match="inputs=None: must be given to count"):
        positions(Later())
    assert known(Later(), keras.Input((5, 3))) == {"dense/kernel": 5}
    with pytest.raises(
        Invalid, match=r"model=later: cannot be traced to count.*incompatible"
    ) as error:
        positions(Later(), keras.Input((5, 2)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("inputs", ["list", "dict"])
def test_several_inputs(inputs: str) -> None:
    x, y = keras.Input((5, 3), name="x"), keras.Input((2,), name="y", dtype="int32")
    words = layers.Flatten()(layers.Embedding(9, 4)(y))
    outputs = [layers.Dense(4, name="a")(x), layers.Dense(4, name="b")(words)]
    model = keras.Model([x, y] if inputs == "list" else {"x": x, "y": y}, outputs)
    assert known(model) == {"a/kernel": 5, "b/kernel": 1}


def test_a_batch_of_a_fixed_size() -> None:
    start = keras.Input((6, 3), batch_size=4)
    y = layers.Dense(5, name="dense")(layers.LSTM(4, stateful=True, name="lstm")(start))
    counts = known(keras.Model(start, y))
    assert counts == {"lstm/lstm_cell/kernel": 6, "lstm/lstm_cell/recurrent_kernel": 6,
                      "dense/kernel": 1}  # fmt: skip


class OnConstants(layers.Layer):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="on_constants")
        self.dense = layers.Dense(3, name="dense")

    def build(self, input_shape: Any) -> None:
        self.dense.build((1, 2))

    def call(self, x: Any) -> Any:
        return x + self.dense(ops.ones((1, 2)))


def test_what_is_computed_once_for_a_batch_of_a_fixed_size_has_no_count_for_a_sample() -> None:
    for batch, count in ((None, 1), (4, None)):
        start = keras.Input((3,), batch_size=batch)
        model = keras.Model(start, OnConstants()(start))
        assert known(model) == {"on_constants/dense/kernel": count}


# -- the model is left as it was ---------------------------------------------------------------


def test_counting_changes_nothing() -> None:
    keras.utils.set_random_seed(2)
    stack = [
        layers.GaussianNoise(0.1, seed=1),
        layers.GRU(4, dropout=0.5, return_sequences=True, seed=1),
        layers.BatchNormalization(),
        layers.Dense(4, activity_regularizer="l2"),
        layers.Dropout(0.5, seed=1),
        layers.Dense(2),
    ]
    start = keras.Input((6, 3), batch_size=2)
    y = layers.LSTM(3, stateful=True, return_sequences=True)(start)
    for layer in stack:
        y = layer(y)
    model = keras.Model(start, y)
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    model(x, training=True)
    before = [v.numpy() for v in model.variables]
    counts = positions(model)
    assert all(same_bits(v.numpy(), b) for v, b in zip(model.variables, before, strict=True))
    assert positions(model) == counts
    outputs = model.predict(x, verbose=0)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    assert copy.predict(x, verbose=0).shape == outputs.shape
    assert positions(copy).keys() == counts.keys()


def test_threads_count_at_the_same_time() -> None:
    model = keras.Sequential([keras.Input((6, 3)), layers.GRU(4), layers.Dense(2)])
    expected = positions(model)
    with ThreadPoolExecutor(4) as pool:
        assert all(c == expected for c in pool.map(lambda _: positions(model), range(8)))


def test_flops_are_two_for_each_product() -> None:
    assert flops(6, 32) == 384
    assert flops(None, 32) is None
