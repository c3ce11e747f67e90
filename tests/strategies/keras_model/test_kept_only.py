"""Weights of which only the kept values are stored: nothing else has the size of the weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from masksweep import strategies
from masksweep.strategies import Invalid, Random
from masksweep.strategies.base import Strategy
from masksweep.strategies.core import keras_internals
from masksweep.strategies.core.audit import same_bits, same_weights
from masksweep.strategies.core.compact import MaskBits
from masksweep.strategies.core.training import Training
from masksweep.strategies.core.weights import describe, values
from masksweep.strategies.plan import Array, MaskedWeight, Plan
from masksweep.strategies.sparse_tensor import SparseTensor
from masksweep.strategies.sparse_values import SparseValues

FORMATS = ["coo", "lookup", "compiled", "dense"]
KERNEL, SIZE = "hidden/kernel", 20 * 30
X = np.random.default_rng(0).normal(size=(64, 20)).astype("float32")
Y = X[:, :1] * 2


def network() -> Any:
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(30, "relu", name="hidden")
    return keras.Sequential([keras.Input((20,)), hidden, layers.Dense(1, name="output")])


def masked_network(format: str = "compiled", **arguments: Any) -> Any:
    return strategies.apply(network(), Random(0.9), SparseTensor(format), **arguments)


def fit(masked: Any, **arguments: Any) -> Any:
    masked.compile("adam", "mse", **arguments)
    masked.fit(X, Y, epochs=2, verbose=0)
    return masked


def arrays_in(masked: Any) -> list[Array]:
    """Returns all arrays that a masked model has: in variables of any kind, and the start."""
    (held,) = masked.holding.weights
    variables = [*masked.variables, *held.constants, held.variable, *masked.optimizer.variables]
    return [*(np.asarray(v) for v in variables), *masked.holding.start.values()]


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_has_the_size_of_the_weight(format: str) -> None:
    masked = fit(masked_network(format))
    assert max(a.nbytes for a in arrays_in(masked)) < SIZE * 4
    slots = [v for v in masked.optimizer.variables if v.path.endswith(("momentum", "velocity"))]
    assert sorted(tuple(v.shape) for v in slots) == sorted([(60,), (30,), (30, 1), (1,)] * 2)
    assert strategies.audit(masked).ok


@pytest.mark.parametrize("format", FORMATS[:3])
def test_no_dense_kernel_is_computed_in_a_step(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = masked_network(format)
    (held,) = masked.holding.weights
    monkeypatch.setattr(type(held), "substitute", lambda self: pytest.fail("it is dense"))
    monkeypatch.setattr(type(held), "effective", lambda self: pytest.fail("it is dense"))
    fit(masked, run_eagerly=True)
    masked.evaluate(X, Y, verbose=0)
    assert strategies.audit(masked).ok
    assert strategies.summary(masked).weights[0].sparsity == 0.9


def test_a_training_computes_no_dense_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    kernel = describe(model)[0]
    mask = Random(0.9).masks({KERNEL: kernel.shape}, 0)[KERNEL]
    held = np.broadcast_to(np.zeros((), "float32"), mask.shape)
    training = Training(
        model, SparseTensor("compiled"), Plan((MaskedWeight(kernel, mask, held),)),
        optimizer=keras.optimizers.Adam(), loss=keras.losses.MeanSquaredError(),
    )  # fmt: skip
    weight = training.masked[KERNEL]
    monkeypatch.setattr(type(weight), "substitute", lambda self: pytest.fail("it is dense"))
    training.step(tf.constant(X), tf.constant(Y))
    assert max(np.asarray(v).nbytes for v in training.all_variables) < SIZE * 4
    assert np.asarray(weight.variable).shape == (0,)
    assert (weight.kept.numpy() == mask).all()
    assert bool(tf.reduce_all(weight.kept.value == mask))
    assert same_bits(np.asarray(weight.held.value), weight.held.numpy())


def test_the_model_itself_has_no_values_until_they_are_assigned() -> None:
    masked = masked_network()
    kernel = masked.get_layer("hidden").kernel
    assert kernel.shape == (20, 30)
    assert kernel.numpy().shape == (0,)
    with pytest.raises(tf.errors.InvalidArgumentError):
        masked.model(X)
    with pytest.raises(ValueError, match="shape of the target variable"):
        kernel.assign(np.ones((3, 3)))
    kernel.assign(np.ones((20, 30)))
    assert (kernel.numpy() == 1).all()
    masked.model(X)


def test_the_audit_does_not_ask_the_strategy_for_the_mask() -> None:
    """An entry that the strategy has at another place is found."""
    masked = fit(masked_network())
    (held,) = masked.holding.weights
    layout = held.layout.numpy()
    starts, inputs = layout[1:32], layout[32:92]
    unit = next(u for u in range(30) if 0 < starts[u + 1] - starts[u] < 20)
    free = next(i for i in range(20) if i not in inputs[starts[unit] : starts[unit + 1]])
    layout[32 + starts[unit]] = free
    held.layout.assign(layout)
    (found,) = strategies.audit(masked).weights
    assert found.violations == 1
    assert found.drift == abs(held.value.numpy()[starts[unit]])
    values = held.value.numpy()
    values[starts[unit]] = np.nan
    held.value.assign(values)
    assert strategies.audit(masked).weights[0].drift == np.inf
    values[starts[unit]] = 0.0  # as where nothing is stored
    held.value.assign(values)
    assert strategies.audit(masked).weights[0].violations == 0


@pytest.mark.parametrize("format", FORMATS)
def test_the_audit_is_that_of_dense_weights(format: str) -> None:
    masked = fit(masked_network(format))
    found, plan = strategies.audit(masked).weights[0], masked.plan
    assert (found.size, found.masked, found.moved) == (SIZE, 540, 1.0)
    assert (found.masked, plan.weights[0].mask.sum()) == (plan.weights[0].masked, 60)
    kernel = masked.dense_weights()[KERNEL]
    assert not kernel[~plan.weights[0].mask].any()
    (held,) = masked.holding.weights
    assert same_bits(kernel.ravel()[held.places()], held.value.numpy())


def test_it_is_saved_without_dense_arrays_and_goes_on(tmp_path: Path) -> None:
    masked = fit(masked_network())
    masked.save(tmp_path / "masked.keras")
    masked.save_weights(tmp_path / "masked.weights.h5")
    sizes: list[int] = []
    with h5py.File(tmp_path / "masked.weights.h5") as file:
        file.visititems(lambda _, node: sizes.append(getattr(node, "nbytes", 0)))
    assert 0 < max(sizes) < SIZE * 4
    loaded = keras.models.load_model(tmp_path / "masked.keras")
    again = masked_network()
    again.load_weights(tmp_path / "masked.weights.h5")
    assert same_weights(again.dense_weights(), masked.dense_weights())
    for model in (masked, loaded):
        model.fit(X, Y, verbose=0)
        assert strategies.audit(model).ok
    assert same_weights(loaded.dense_weights(), masked.dense_weights())
    assert loaded.get_layer("hidden").kernel.numpy().shape == (0,)


def test_a_file_tells_the_format_that_auto_chose(tmp_path: Path) -> None:
    """The order of the stored values depends on it, and another version may choose another one."""
    masked = fit(masked_network("auto"))
    assert masked.holding.strategies == {KERNEL: SparseTensor("dense")}
    masked.save(tmp_path / "masked.keras")
    loaded = keras.models.load_model(tmp_path / "masked.keras")
    assert loaded.holding.strategies == masked.holding.strategies
    assert same_weights(loaded.dense_weights(), masked.dense_weights())
    masked.holding.strategies[KERNEL] = SparseTensor("auto")  # as earlier versions stored it
    masked.save(tmp_path / "older.keras")
    with pytest.raises(ValueError, match="in an order that is not known here"):
        keras.models.load_model(tmp_path / "older.keras")


def test_values_in_another_order_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "masked.weights.h5"
    for change in ("deleted", "another"):
        fit(masked_network()).save_weights(path)
        with h5py.File(path, "r+") as file:
            order = file["vars/order_0"][:]
            del file["vars/order_0"]
            if change == "another":
                file["vars/order_0"] = order[::-1]
        with pytest.raises(ValueError, match="in an order that is not known here"):
            masked_network().load_weights(path)


@pytest.mark.parametrize("strategy", [SparseValues(), SparseTensor("compiled")])
def test_a_file_with_other_counts_changes_nothing(strategy: Strategy, tmp_path: Path) -> None:
    models = [strategies.apply(network(), Random(s), strategy) for s in (0.5, 0.9)]
    models[0].save_weights(tmp_path / "masked.weights.h5")
    before = models[1].plan
    with pytest.raises(ValueError, match="masks of other sizes"):
        models[1].load_weights(tmp_path / "masked.weights.h5")
    models[1].save_weights(tmp_path / "masked.weights.h5")
    with pytest.raises(ValueError, match="masks of other sizes"):
        models[0].load_weights(tmp_path / "masked.weights.h5")
    assert (models[1].plan.weights[0].mask == before.weights[0].mask).all()


def test_weights_of_a_plain_model_are_loaded(tmp_path: Path) -> None:
    masked = fit(masked_network())
    plain = masked.export_plain()
    assert np.allclose(plain(X), masked(X), atol=1e-6)
    assert masked.get_layer("hidden").kernel.numpy().shape == (0,)
    plain.save_weights(tmp_path / "plain.weights.h5")
    other = masked_network()
    other.load_weights(tmp_path / "plain.weights.h5")
    assert same_weights(other.dense_weights(), masked.dense_weights())
    assert other.get_layer("hidden").kernel.numpy().shape == (0,)


def test_files_with_dense_arrays_are_loaded(tmp_path: Path) -> None:
    """Earlier versions stored the kernel, and its start, as dense arrays."""
    masked, path = fit(masked_network()), tmp_path / "masked.weights.h5"
    masked.save_weights(path)
    start = np.zeros((20, 30), "float32")
    (held,) = masked.holding.weights
    start.flat[held.places()] = masked.holding.start[KERNEL]
    with h5py.File(path, "r+") as file:
        stored: list[str] = []
        file.visititems(
            lambda name, node: stored.append(name) if getattr(node, "shape", 0) == (0,) else None
        )
        for name in [*stored, "vars/start_0"]:
            del file[name]
            file[name] = start
    other = masked_network()
    other.load_weights(path)
    assert len(stored) == 1
    assert same_weights(other.holding.start, masked.holding.start)
    assert same_weights(other.dense_weights(), masked.dense_weights())


def test_minus_zero_is_held_as_it_is() -> None:
    """It is held by the stored array of held values."""
    masked = fit(masked_network(held={KERNEL: np.full((20, 30), -0.0)}))
    (held,) = masked.holding.weights
    assert not held.kept_only
    assert strategies.audit(masked).ok
    plus = masked_network().holding.weights[0]
    with pytest.raises(Invalid, match="held values of another kind"):
        plus.arrays(held.masked())


@pytest.mark.parametrize("strategy", ["sparse_tensor", "sparse_values", "hard_mask"])
def test_deferred_weights_have_the_same_bits(strategy: str) -> None:
    with strategies.deferred_weights():
        model = network()
    model.get_layer("hidden").kernel  # noqa: B018 - it can be looked at
    deferred = strategies.apply(model, Random(0.9), strategy)
    eager = strategies.apply(network(), Random(0.9), strategy)
    for masked in (deferred, eager):
        fit(masked)
    assert same_weights(deferred.dense_weights(), eager.dense_weights())


@pytest.mark.parametrize("pattern", [strategies.Magnitude(50), strategies.SNIP(0.5)])
def test_patterns_see_deferred_weights(pattern: Any) -> None:
    with strategies.deferred_weights():
        model = network()
    data = {"data": (X, Y), "loss": "mse"}
    masks = [
        strategies.apply(m, pattern, "sparse_tensor", **data).plan.weights[0].mask
        for m in (model, network())
    ]
    assert (masks[0] == masks[1]).all()


def test_deferred_weights_are_drawn_at_the_kept_places_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with strategies.deferred_weights():
        model = network()
    drawn: list[str] = []
    draw = keras_internals.draw

    def record(variable: Any) -> None:
        if not keras_internals.has_values(variable):
            drawn.append(variable.path)
        draw(variable)

    monkeypatch.setattr(keras_internals, "draw", record)
    monkeypatch.setattr(
        keras.initializers.GlorotUniform, "__call__", lambda self, shape, dtype: (
            pytest.fail("it is drawn dense") if tuple(shape) == (20, 30) else np.ones(shape)
        )
    )  # fmt: skip
    masked = strategies.apply(model, Random(0.9), "sparse_tensor")
    assert masked.dense_weights()[KERNEL].any()
    names = {"/".join(path.split("/")[-2:]) for path in drawn}
    assert {"hidden/bias", "output/kernel"} <= names
    assert KERNEL not in names


def test_a_training_draws_deferred_weights() -> None:
    with strategies.deferred_weights():
        model = network()
    plan = Plan()
    optimizer, loss = keras.optimizers.Adam(), keras.losses.MeanSquaredError()
    Training(model, strategies.STRATEGIES["dense"](), plan, optimizer=optimizer, loss=loss)
    assert same_weights(values(model), values(network()))


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (3, 5), (2, 3, 11), (0, 4)])
def test_a_mask_as_bits(shape: tuple[int, ...]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.5
    bits = MaskBits(np.asarray(mask))
    assert (bits.numpy() == mask).all()
    assert bits.numpy().shape == np.asarray(bits.value).shape == shape
    assert (np.asarray(bits.value) == mask).all()
    assert bits.masked == mask.size - np.count_nonzero(mask)
    assert (bits.at(np.arange(mask.size)) == np.ravel(mask)).all()
