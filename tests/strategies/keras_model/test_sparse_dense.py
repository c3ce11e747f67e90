"""Tests of `SparseDense`: it is a Dense layer with a masked kernel that is never in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import layers

from masksweep import strategies
from masksweep.strategies import Edges, Invalid, SparseDense
from masksweep.strategies.core.audit import same_bits
from masksweep.strategies.core.flops import positions
from masksweep.strategies.keras_model import sparse_dense
from masksweep.strategies.plan import Mask

INPUTS, UNITS = 12, 7
MASK = np.random.default_rng(0).random((INPUTS, UNITS)) < 0.3
EDGES = np.argwhere(MASK)
X = np.random.default_rng(1).normal(size=(32, INPUTS)).astype("float32")
Y = X[:, :1] - X[:, 1:2]
PRODUCTS = {
    "compiled": sparse_dense._compiled_product,
    "tensorflow": sparse_dense._sparse_product,
}


@pytest.fixture(params=PRODUCTS)
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Computes with either product."""
    monkeypatch.setattr(sparse_dense, "_compiled_product", PRODUCTS[request.param])
    return str(request.param)


def network(*, edges: Any = EDGES, **arguments: Any) -> Any:
    keras.utils.set_random_seed(0)
    genes = SparseDense(UNITS, edges, "relu", name="genes", **arguments)
    return keras.Sequential([keras.Input((INPUTS,)), genes, layers.Dense(1, name="output")])


def masked_twin() -> Any:
    """Returns the same network with a dense layer, held by `sparse_tensor`."""
    keras.utils.set_random_seed(0)
    genes = layers.Dense(UNITS, "relu", name="genes")
    model = keras.Sequential([keras.Input((INPUTS,)), genes, layers.Dense(1, name="output")])
    return strategies.apply(
        model, {"genes/kernel": MASK}, strategies.STRATEGIES["sparse_tensor"]("compiled")
    )


def fit(model: Any, **arguments: Any) -> Any:
    model.compile("adam", "mse", **arguments)
    model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return model


def test_it_trains_as_a_masked_dense_layer_to_the_bit() -> None:
    model, twin = fit(network()), fit(masked_twin())
    kernel = np.zeros(MASK.shape, "float32")
    layer = model.get_layer("genes")
    kernel.flat[layer.places()] = layer.values.numpy()
    expected = twin.dense_weights()
    assert same_bits(kernel, expected["genes/kernel"])
    assert same_bits(layer.bias.numpy(), expected["genes/bias"])
    assert strategies.audit(model).ok


def test_only_values_of_connections_are_stored() -> None:
    model = fit(network(), run_eagerly=True)
    kept = len(EDGES)
    layer = model.get_layer("genes")
    assert [tuple(v.shape) for v in layer.trainable_variables] == [(kept,), (UNITS,)]
    slots = [v for v in model.optimizer.variables if "genes_values" in v.path]
    assert [tuple(v.shape) for v in slots] == [(kept,)] * 2
    assert not layer.supports_jit


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda s: arrays(bool, s)),
    st.sampled_from(sorted(PRODUCTS)),
    st.integers(1, 3),
)
@settings(max_examples=40)
def test_outputs_and_gradients(mask: Mask, product: str, rank: int) -> None:
    mask[-1, 0] = True
    inputs, units = mask.shape
    layer = SparseDense(units, np.argwhere(mask), "tanh", dtype="float64")
    dense = layers.Dense(units, "tanh", dtype="float64")
    x = tf.constant(np.random.default_rng(0).normal(size=(*[2] * rank, inputs)))
    for made in (layer, dense):
        made.build(x.shape)
    kernel = np.zeros(mask.shape)
    kernel.flat[layer.places()] = np.random.default_rng(1).normal(size=mask.sum())
    layer.values.assign(kernel.flat[layer.places()])
    dense.kernel.assign(kernel)

    def compute(made: Any, weight: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = made(x)
            loss = tf.reduce_sum(
                y * tf.cos(tf.reshape(tf.range(tf.size(y), dtype=y.dtype), y.shape))
            )
        return [y, *tape.gradient(loss, [x, weight.value])]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_dense, "_compiled_product", PRODUCTS[product])
        y, of_x, of_values = compute(layer, layer.values)
    expected, expected_of_x, of_kernel = compute(dense, dense.kernel)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_allclose(of_x, expected_of_x, atol=1e-12)
    np.testing.assert_allclose(of_values, np.ravel(of_kernel)[layer.places()], atol=1e-12)


def test_edges_in_each_form(tmp_path: Path) -> None:
    frame = pd.DataFrame(EDGES, columns=["source", "target"])
    frame.to_csv(tmp_path / "edges.csv", index=False)
    matrix = scipy.sparse.csr_matrix(MASK * 0.5)
    scipy.sparse.save_npz(tmp_path / "edges.npz", matrix)
    genes = [f"gene {i}" for i in range(INPUTS)]
    named = Edges(pairs=[(genes[i], j) for i, j in EDGES], inputs=genes)
    shuffled = np.random.default_rng(0).permutation(np.concatenate([EDGES, EDGES]))
    explicit_zero = scipy.sparse.coo_matrix(MASK * 1.0)
    explicit_zero.row = np.append(explicit_zero.row, [0, 0]).astype("int32")
    absent = np.flatnonzero(~MASK[0])[0]
    explicit_zero.col = np.append(explicit_zero.col, [absent, absent]).astype("int32")
    explicit_zero.data = np.append(explicit_zero.data, [1.0, -1.0])
    forms = [
        EDGES, EDGES.tolist(), [tuple(e) for e in EDGES], frame, matrix, matrix.tocsc(), shuffled,
        str(tmp_path / "edges.csv"), tmp_path / "edges.npz", Edges(pairs=EDGES), named,
        explicit_zero, EDGES.astype("uint8"),
    ]  # fmt: skip
    for edges in forms:
        layer = network(edges=edges).get_layer("genes")
        assert sorted(layer.places()) == np.flatnonzero(MASK).tolist()
        assert layer.has_given_structure()


WRONG = {
    "edges=int64 \\[1, 2\\]: edge 0: source 12 is out of the range; genes has 12 inputs": [[12, 0]],
    "edges=int64 \\[2, 2\\]: edge 1: target -1 is out of the range; genes has 7 units": [
        [0, 0], [0, -1],
    ],
    "edges=int64 \\[1, 3\\]: must be whole numbers \\[edges, 2\\]": [[0, 1, 2]],
    "edges=a sparse matrix \\[7, 12\\]: must be a matrix of the shape of genes, \\[12, 7\\]": (
        scipy.sparse.csr_matrix(MASK.T)
    ),
    "edges=None: must be given": None,
    "path=missing.csv": "missing.csv",
    "pairs=1 edges: edge 0: source 'TP53' is no index; if it is a name, give inputs": [("TP53", 0)],
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_what_is_refused(message: str) -> None:
    with pytest.raises(Invalid, match=f"^{message}"):
        network(edges=WRONG[message])
    with pytest.raises(Invalid, match="units=0: must be a positive"):
        SparseDense(0, EDGES)


def test_it_is_saved_and_goes_on(tmp_path: Path) -> None:
    model = fit(network())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert strategies.audit(loaded).ok
    for each in (model, loaded):
        each.fit(X, Y, shuffle=False, verbose=0)
    assert all(
        same_bits(a, b) for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True)
    )
    model.save_weights(tmp_path / "model.weights.h5")
    other = network()
    other.load_weights(tmp_path / "model.weights.h5")
    assert same_bits(np.asarray(other(X)), np.asarray(model(X)))


def test_a_clone_gets_its_edges_with_the_weights() -> None:
    model = fit(network())
    clone = keras.models.clone_model(model)
    with pytest.raises(RuntimeError, match="must be loaded or set, with the weights"):
        clone(X)
    clone.set_weights(model.get_weights())
    assert same_bits(np.asarray(clone(X)), np.asarray(model(X)))
    assert clone.get_layer("genes").has_given_structure()
    # a layer that is not built has its edges in its config
    unbuilt = SparseDense.from_config(SparseDense(UNITS, EDGES, use_bias=False).get_config())
    unbuilt.build((None, INPUTS))
    assert sorted(unbuilt.places()) == np.flatnonzero(MASK).tolist()


def test_the_audit_finds_another_structure() -> None:
    model = fit(network())
    layer = model.get_layer("genes")
    structure = layer.structure.numpy()
    structure[-1] += 1
    layer.structure.assign(structure)
    (found,) = strategies.audit(model).weights
    assert (found.violations, found.masked, found.size) == (len(EDGES), (~MASK).sum(), MASK.size)
    assert not strategies.audit(model).ok
    assert not strategies.audit(network()).ok  # nothing has moved


def test_the_summary_and_flops() -> None:
    model = network()
    row = strategies.summary(model).weights[0]
    assert (row.name, row.shape, row.masked) == ("genes/values", (INPUTS, UNITS), (~MASK).sum())
    assert (row.flops, row.masked_flops) == (2 * MASK.size, 2 * len(EDGES))
    assert (row.held, row.strategy) == ("0", "SparseDense")
    sequences = keras.Sequential(
        [keras.Input((5, INPUTS)), SparseDense(UNITS, EDGES, name="genes")]
    )
    assert positions(sequences)["genes/values"] == 5


def test_beside_a_masked_layer(tmp_path: Path) -> None:
    """A model with both is masked, audited, summed up and saved."""
    masked = fit(strategies.apply(network(), strategies.Random(0.5), targets="output/kernel"))
    for model in (masked, _saved_and_loaded(masked, tmp_path)):
        assert [w.name for w in strategies.audit(model).weights] == [
            "output/kernel",
            "genes/values",
        ]
        assert strategies.audit(model).ok
        held = {w.name: w.strategy for w in strategies.summary(model).weights if w.strategy}
        assert held == {"genes/values": "SparseDense", "output/kernel": "hard_mask"}


def _saved_and_loaded(model: Any, folder: Path) -> Any:
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def test_other_models_are_not_audited() -> None:
    plain = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    for function in (strategies.audit, strategies.summary):
        with pytest.raises(Invalid, match="must be a masked model"):
            function(plain)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_half_precision(policy: str, product: str) -> None:
    model = fit(network(dtype=policy))
    assert model.get_layer("genes").values.dtype == policy.replace(
        "mixed_bfloat16", "float32"
    ).replace("mixed_float16", "float32")
    assert strategies.audit(model).weights[0].violations == 0
    assert np.isfinite(np.asarray(model(X))).all()


def test_it_is_built_by_its_first_inputs_and_where_weights_are_deferred() -> None:
    keras.utils.set_random_seed(0)
    unbuilt = keras.Sequential([SparseDense(UNITS, EDGES, "relu", name="genes"), layers.Dense(1)])
    fit(unbuilt)
    assert strategies.audit(unbuilt).ok
    with strategies.deferred_weights():
        model = network()
    strategies.apply(model, strategies.Random(0.5), targets="output/kernel")
    assert same_bits(
        model.get_layer("genes").values.numpy(), network().get_layer("genes").values.numpy()
    )


def test_where_there_is_a_gpu_it_does_not_use_compiled_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = network()
    expected = np.asarray(model(X))
    monkeypatch.setattr(sparse_dense, "_compiled_product", lambda *_: pytest.fail("it is Numba"))
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    np.testing.assert_allclose(model(X), expected, atol=1e-6)
