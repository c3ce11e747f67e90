"""Tests that weights read from saved models have the names and bits of the live model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from masksweep.strategies.core.npz import regions
from masksweep.strategies.core.weights import owners
from masksweep.strategies.errors import Invalid
from masksweep.strategies.plan import Array
from masksweep.sweeps.audit.keras_variables import VARIABLES_BY_CLASS, variable_names
from masksweep.sweeps.audit.opening import check, open_model
from masksweep.sweeps.audit.stored import StoredModel, StoredWeight, sliced
from tests.support.saved_files import SAVED


def stored(path: str | Path) -> dict[str, Array]:
    """Returns all weights of a saved model by name, read in blocks of at most five entries."""
    with open_model(str(path)) as model:
        assert len({w.name for w in model.weights}) == len(model.weights)
        arrays = {}
        for weight in model.weights:
            arrays[weight.name] = whole(weight)
        return arrays


def whole(weight: StoredWeight) -> Array:
    """Returns a weight, read in blocks of at most five entries."""
    array = np.empty(weight.shape, weight.dtype)
    for region, block in zip(regions(weight.shape, 5), weight.blocks(5), strict=True):
        assert block.dtype == weight.dtype
        assert block.shape == array[region].shape
        array[region] = block
    return array


def live(model: Any) -> dict[str, Array]:
    """Returns all weights of a model by name, without the states of seeds, which are not saved."""
    name_by_id = {key: name for key, (name, _) in owners(model).items()}
    return {name_by_id[id(v)]: np.asarray(v) for v in model.variables if id(v) in name_by_id}


def assert_same(first: dict[str, Array], second: dict[str, Array]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].tobytes() == second[name].tobytes(), name


def randomized(model: Any) -> Any:
    """Sets all weights to random numbers, so that each weight can be recognized by its values."""
    random = np.random.default_rng(0)
    for v in model.variables:
        if "seed_generator" not in v.path:
            v.assign(random.integers(0, 99, v.shape) + random.integers(0, 9))
    return model


def around(*stack: Any, shape: tuple[int, ...]) -> Any:
    return keras.Sequential([keras.Input(shape), *stack])


def two_inputs(layer: Any) -> Any:
    inputs = keras.Input((4, 3))
    return keras.Model(inputs, layer(inputs, inputs))


def attention(layer: Any) -> Any:
    inputs = keras.Input((4, 3))
    return keras.Model(inputs, layer([inputs, inputs]))


def nested() -> Any:
    """Returns a model with nested models, and with layers of the same name or class."""
    shared = layers.Dense(4, name="shared")
    low = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="same")], name="low")
    high = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="same"), low], name="high")
    inputs = keras.Input((4,))
    outputs = layers.Dense(4, name="same")(shared(high(shared(inputs))))
    for i in range(12):  # more than ten layers of the same class
        outputs = layers.Dense(4, name=f"named_{i % 3}_{i}")(outputs)
    return keras.Model(inputs, outputs, name="outer")


def adapted() -> Any:
    layer = layers.Normalization(name="x")
    layer.adapt(np.random.default_rng(0).normal(size=(9, 3)))
    return around(layer, shape=(3,))


MODELS: dict[str, Callable[[], Any]] = {
    "Dense": lambda: around(layers.Dense(4, name="x"), shape=(3,)),
    "Dense without bias": lambda: around(layers.Dense(4, use_bias=False, name="x"), shape=(3,)),
    "Dense float64": lambda: around(layers.Dense(4, name="x", dtype="float64"), shape=(3,)),
    "Dense bfloat16": lambda: around(layers.Dense(4, name="x", dtype="bfloat16"), shape=(3,)),
    "EinsumDense": lambda: around(
        layers.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d", name="x"), shape=(2, 3)
    ),
    "Embedding": lambda: around(layers.Embedding(5, 3, name="x"), shape=(4,)),
    "ReversibleEmbedding": lambda: around(layers.ReversibleEmbedding(5, 3, name="x"), shape=(4,)),
    "untied ReversibleEmbedding": lambda: around(
        layers.ReversibleEmbedding(5, 3, tie_weights=False, name="x"), shape=(4,)
    ),
    **{
        f"{name}{n}D": lambda name=name, n=n: around(
            getattr(layers, f"{name}{n}D")(2, 2, name="x"), shape=(4,) * n + (3,)
        )
        for name, most in (("Conv", 3), ("SeparableConv", 2))
        for n in range(1, most + 1)
    },
    **{
        f"Conv{n}DTranspose": lambda n=n: around(
            getattr(layers, f"Conv{n}DTranspose")(2, 2, name="x"), shape=(4,) * n + (3,)
        )
        for n in (1, 2, 3)
    },
    **{
        f"DepthwiseConv{n}D": lambda n=n: around(
            getattr(layers, f"DepthwiseConv{n}D")(2, name="x"), shape=(4,) * n + (3,)
        )
        for n in (1, 2)
    },
    **{
        name: lambda name=name: around(getattr(layers, name)(2, name="x"), shape=(4, 3))
        for name in ("SimpleRNN", "GRU", "LSTM")
    },
    **{
        f"ConvLSTM{n}D": lambda n=n: around(
            getattr(layers, f"ConvLSTM{n}D")(2, 2, name="x"), shape=(2,) + (4,) * n + (3,)
        )
        for n in (1, 2, 3)
    },
    "RNN of cells": lambda: around(
        layers.RNN([layers.GRUCell(2, name="a"), layers.LSTMCell(2, name="b")], name="x"),
        shape=(4, 3),
    ),
    "Bidirectional": lambda: around(
        layers.Bidirectional(layers.GRU(2, name="y"), name="x"), shape=(4, 3)
    ),
    "TimeDistributed": lambda: around(
        layers.TimeDistributed(layers.Dense(2, name="y"), name="x"), shape=(4, 3)
    ),
    "SpectralNormalization": lambda: around(
        layers.SpectralNormalization(layers.Dense(2, name="y"), name="x"), shape=(3,)
    ),
    "BatchNormalization": lambda: around(layers.BatchNormalization(name="x"), shape=(3,)),
    "BatchNormalization without gamma": lambda: around(
        layers.BatchNormalization(scale=False, name="x"), shape=(3,)
    ),
    "BatchNormalization with renorm": lambda: around(
        layers.BatchNormalization(renorm=True, name="x"), shape=(3,)
    ),
    "LayerNormalization": lambda: around(layers.LayerNormalization(name="x"), shape=(3,)),
    "LayerNormalization without beta": lambda: around(
        layers.LayerNormalization(center=False, name="x"), shape=(3,)
    ),
    "GroupNormalization": lambda: around(layers.GroupNormalization(3, name="x"), shape=(3,)),
    "RMSNormalization": lambda: around(layers.RMSNormalization(name="x"), shape=(3,)),
    "Normalization": adapted,
    "PReLU": lambda: around(layers.PReLU(name="x"), shape=(3,)),
    "Attention": lambda: attention(layers.Attention(use_scale=True, name="x")),
    "Attention with concat": lambda: attention(
        layers.Attention(use_scale=True, score_mode="concat", name="x")
    ),
    "AdditiveAttention": lambda: attention(layers.AdditiveAttention(name="x")),
    "MultiHeadAttention": lambda: two_inputs(layers.MultiHeadAttention(2, 3, name="x")),
    "GroupQueryAttention": lambda: two_inputs(
        layers.GroupQueryAttention(3, 4, 2, use_bias=False, name="x")
    ),
    "Dropout": lambda: around(layers.Dense(2, name="x"), layers.Dropout(0.5), shape=(3,)),
    "nested": nested,
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_names_and_bits_are_those_of_the_live_model(kind: str, tmp_path: Path) -> None:
    """Tests each kind of layer that has variables. Optimizer and metrics must be left out."""
    model = randomized(MODELS[kind]())
    model.compile("adam", "mse", metrics=["mae"])
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    weights = stored(tmp_path / "model.keras")
    if kind == "SpectralNormalization":  # saves the kernel a second time, for its inner layer
        assert weights.pop("x/y/kernel").tobytes() == weights["x/kernel"].tobytes()
    assert_same(weights, live(model))


def test_every_layer_that_is_known_is_tested() -> None:
    names = " ".join(MODELS)
    cells = {name for name in VARIABLES_BY_CLASS if name.endswith("Cell")}
    assert not [name for name in set(VARIABLES_BY_CLASS) - cells if name not in names]
    assert all(cell.removesuffix("Cell") in names for cell in cells)


UNCERTAIN = {
    "BatchNormalization without gamma": "x/0",
    "TimeDistributed": "x/y/0",
    "LayerNormalization without beta": "x/0",
    "Attention": "x/0",
}
"""Models whose variable names are unknown without a config, each with the name of one weight."""


@pytest.mark.parametrize("kind", [k for k in MODELS if k != "SpectralNormalization"])
def test_weights_alone_have_the_same_names_or_places(kind: str, tmp_path: Path) -> None:
    model = randomized(MODELS[kind]())
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    if UNCERTAIN.get(kind) is None:
        assert_same(stored(path), live(model))
        return
    weights = stored(path)
    assert UNCERTAIN[kind] in weights
    assert sorted(a.tobytes() for a in weights.values()) == sorted(
        a.tobytes() for a in live(model).values()
    )


@pytest.mark.parametrize(
    "kind", [k for k in MODELS if k not in ("nested", "SpectralNormalization")]
)
def test_names_in_the_old_format(kind: str, tmp_path: Path) -> None:
    model = randomized(MODELS[kind]())
    path = tmp_path / "model.h5"
    model.save(path)
    assert_same(stored(path), live(model))


@pytest.mark.parametrize("kind", ["Dense", "BatchNormalization", "GRU", "Dense bfloat16"])
def test_names_in_a_saved_model(kind: str, tmp_path: Path) -> None:
    """Keras puts the model's name in front of the names; `find` needs only their end."""
    model = randomized(MODELS[kind]())
    model.export(tmp_path / "saved", verbose=False)
    with open_model(str(tmp_path / "saved")) as saved:
        for name, array in live(model).items():
            weight = saved.find(name)
            assert weight is not None, name
            assert whole(weight).tobytes() == array.tobytes()


KERNEL = np.where([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 1]], 9, 0).astype("float32")
FILES = {
    "keras2.h5": ("hidden/kernel", "norm/moving_mean", "both/forward_gru/gru_cell/kernel"),
    "keras2_weights.h5": ("hidden/kernel", "norm/moving_mean", "inner/same/kernel"),
    "keras2.keras": ("hidden/kernel", "norm/moving_mean", "both/backward_gru/gru_cell/bias"),
    "keras2.weights.h5": ("dense/kernel", "batch_normalization/moving_mean"),
    "keras2_saved_model": ("hidden/kernel", "norm/moving_mean", "both/forward_gru/gru_cell/kernel"),
    "keras2_checkpoint/weights.index": ("hidden/kernel", "norm/moving_mean"),
    "keras2_tfmot_stripped.h5": ("hidden/kernel", "hidden/bias"),
    "keras2_tfmot_wrapped.h5": ("hidden/kernel", "prune_low_magnitude_hidden/mask"),
    "keras3_0.keras": ("hidden/kernel", "norm/moving_mean", "both/forward_gru/gru_cell/kernel"),
    "keras3_0.weights.h5": ("dense/kernel", "batch_normalization/moving_mean"),
}
"""Names of weights in files of Keras 2.21, TensorFlow Model Optimization, and Keras 3.0.

The first is the masked kernel. See saved/README for how the files were made.
"""


@pytest.mark.parametrize("file", FILES)
def test_files_of_older_versions(file: str) -> None:
    with open_model(str(SAVED / file)) as model:
        assert all(model.find(name) for name in FILES[file])
        kernel = model.find(FILES[file][0])
        assert kernel
        np.testing.assert_array_equal(whole(kernel), KERNEL)


@pytest.mark.parametrize("entries", [1, 2, 3, 5, 12, 1000])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4), (1, 9), (2, 3, 5), (2, 1, 7), (3, 0)])
def test_regions_cut_an_array_in_the_order_of_its_entries(
    shape: tuple[int, ...], entries: int
) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    blocks = [np.asarray(array[region]) for region in regions(shape, entries)]
    assert all(0 < block.size <= entries and block.ndim == array.ndim for block in blocks)
    assert [x for block in blocks for x in block.ravel()] == array.ravel().tolist()


# -- names -----------------------------------------------------------------------------------


def named(*names: str) -> StoredModel:
    def weight(name: str) -> StoredWeight:
        alias = (f"model/{name}",)
        return StoredWeight(name, (1,), np.dtype("f4"), sliced(np.zeros(1, "f4")), alias)

    return StoredModel("x", tuple(map(weight, names)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/kernel", "a/kernel"),
        ("a/kernel:0", "a/kernel"),
        ("model/a/kernel", "a/kernel"),
        ("c/bias", "b/c/bias"),
        ("kernel", None),
        ("ias", None),
        ("other/a/kernel", None),
    ],
)
def test_how_a_name_is_matched(name: str, expected: str | None) -> None:
    """A name never fits a weight with a shorter name, except with the model's name in front."""
    model = named("a/kernel", "x/a/kernel", "b/c/bias", "d/kernels")
    if name == "kernel":
        with pytest.raises(Invalid, match="kernel may be a/kernel or x/a/kernel; give the whole"):
            model.find(name)
        return
    weight = model.find(name)
    assert (weight and weight.name) == expected


def test_two_layers_of_one_name_are_named_by_their_places(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("Tests")
    class Twins(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.z, self.a = layers.Dense(4, name="twin"), layers.Dense(4, name="twin")

        def call(self, x: Any) -> Any:
            return self.a(self.z(x))

    model = Twins()
    model(np.zeros((1, 4)))
    model.save(tmp_path / "model.keras")
    weights = stored(tmp_path / "model.keras")
    assert list(weights) == ["a/0", "a/1", "layers/dense/kernel", "layers/dense/bias"]
    np.testing.assert_array_equal(weights["a/0"], model.a.kernel)


def test_variable_names_are_certain_or_none() -> None:
    assert variable_names("dense", 2, {}) == ["kernel", "bias"]
    assert variable_names("dense", 3, {"use_bias": True}) is None
    assert variable_names("my_dense", 2, {}) is None
    assert variable_names(None, 1, {}) is None


def test_what_is_no_models_file(tmp_path: Path) -> None:
    for name in ("folder", "text.keras", "empty.h5"):
        path = tmp_path / name
        path.mkdir() if name == "folder" else path.write_bytes(name.encode()[:4])
        with pytest.raises(Invalid, match=r"must be a \.keras, \.h5 or \.weights\.h5 file"):
            check(str(path))
    with pytest.raises(Invalid, match="no such file"):
        check(str(tmp_path / "none"))
