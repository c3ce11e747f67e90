"""SNIP, GraSP and SynFlow: their scores are those of the papers, on models solved by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from masksweep import strategies
from masksweep.strategies import SNIP, GraSP, Invalid, Pattern, SynFlow
from masksweep.strategies.core.weights import values
from masksweep.strategies.patterns.problem import Problem
from masksweep.strategies.patterns.saliency import Saliency

KERNEL = "line/kernel"
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(64, 5)).astype("float32"), RNG.normal(size=(64, 2)).astype("float32")


def line() -> Any:
    """A linear model, whose loss and derivatives are known."""
    keras.utils.set_random_seed(1)
    layers = [keras.Input((5,)), keras.layers.Dense(2, use_bias=False, name="line")]
    return keras.Sequential(layers)


def chain(last: str | None = None, units: tuple[int, ...] = (6, 4)) -> Any:
    """A network of linear layers with positive and negative weights."""
    keras.utils.set_random_seed(2)
    layers = [
        keras.layers.Dense(n, use_bias=False, name=f"layer_{i}_{n}") for i, n in enumerate(units)
    ]
    return keras.Sequential([keras.Input((5,)), *layers, keras.layers.Dense(3, last, name="out")])


def problem(model: Any, inputs: Any = X, targets: Any = Y) -> Problem:
    state = [np.asarray(v) for v in model.non_trainable_variables]
    return Problem(model, values(model), state, inputs, targets, keras.losses.MeanSquaredError())


def scores(pattern: Saliency, model: Any, seed: int = 0) -> Any:
    return pattern.scores(problem(model), [KERNEL], seed)[KERNEL]


def gradient(w: Any) -> Any:
    """The gradient of mean((X w - Y) ** 2), in float64."""
    return 2 / Y.size * X.T.astype(float) @ (X @ w - Y)


# -- scores ----------------------------------------------------------------------------------


def test_snip_scores_by_hand() -> None:
    w = values(model := line())[KERNEL].astype(float)
    np.testing.assert_allclose(scores(SNIP(), model), np.abs(w * gradient(w)), rtol=1e-4)


def test_grasp_scores_by_hand() -> None:
    w = values(model := line())[KERNEL].astype(float)
    hessian_times_gradient = 2 / Y.size * X.T.astype(float) @ (X @ gradient(w))
    expected = w * hessian_times_gradient
    np.testing.assert_allclose(scores(GraSP(), model), expected, rtol=1e-4, atol=1e-6)


def test_grasp_removes_what_hinders_the_gradient() -> None:
    """The squared norm of the gradient changes by minus twice the score, to first order."""
    w, small = values(model := line())[KERNEL].astype(float), 1e-5
    found = scores(GraSP(), model)
    for i, j in ((0, 0), (3, 1)):
        moved = w.copy()
        moved[i, j] *= 1 - small
        change = (gradient(moved) ** 2).sum() - (gradient(w) ** 2).sum()
        assert change / small == pytest.approx(-2 * found[i, j], rel=1e-3)


def test_synflow_scores_by_hand() -> None:
    model = chain(units=(6,))
    first, last = (np.abs(values(model)[n]) for n in ("layer_0_6/kernel", "out/kernel"))
    upstream = np.ones(5)[:, None] * first  # the input is ones
    expected = upstream * last.sum(axis=1)
    pattern = SynFlow(0.5, rounds=1)
    mask = pattern.from_problem(problem(model), {"layer_0_6/kernel": first}, 0)["layer_0_6/kernel"]
    assert set(np.argsort(expected.ravel())[:15]) == set(np.flatnonzero(~mask.ravel()))


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.97])
def test_synflow_does_not_cut_a_layer_off(sparsity: float) -> None:
    """Its rounds keep a path through each layer; in one round it cuts layers off."""
    model = chain(units=(40, 40, 40, 6))
    names = [n for n in values(model) if n.endswith("kernel")]
    weights = {n: values(model)[n] for n in names}
    masks = SynFlow(sparsity).from_problem(problem(model), weights, 0)
    assert all(mask.any() for mask in masks.values())
    size = sum(m.size for m in masks.values())
    assert sum(int(m.sum()) for m in masks.values()) == size - round(sparsity * size)
    effective = [np.abs(weights[n]) * masks[n] for n in names]
    assert float(np.ones(5) @ np.linalg.multi_dot(effective) @ np.ones(3)) > 0


@pytest.mark.parametrize("last", ["softmax", "sigmoid"])
def test_synflow_leaves_the_last_activation_out(last: str) -> None:
    with_activation, without = (strategies.apply(chain(a), SynFlow(0.7)) for a in (last, None))
    for one, other in zip(with_activation.plan.weights, without.plan.weights, strict=True):
        assert np.array_equal(one.mask, other.mask)
    assert with_activation.export_plain().layers[-1].activation.__name__ == last


def test_synflow_refuses_a_constant_sum() -> None:
    model = keras.Sequential([keras.Input((5,)), *chain().layers, keras.layers.Softmax()])
    with pytest.raises(Invalid, match="end in logits"):
        strategies.apply(model, SynFlow(0.7))


# -- samples ---------------------------------------------------------------------------------


def test_samples_are_chosen_by_the_seed() -> None:
    model, few = line(), SNIP(samples=8)
    first, again, other = (scores(few, model, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(scores(SNIP(samples=64), model, 0), scores(SNIP(samples=999), model, 1))
    assert len(problem(model).sample(8, 0).inputs) == 8


def test_several_inputs() -> None:
    a, b = keras.Input((5,), name="a"), keras.Input((3,), name="b")
    hidden = keras.layers.Dense(4, "relu", name="hidden")(keras.layers.concatenate([a, b]))
    model = keras.Model({"a": a, "b": b}, keras.layers.Dense(2, name="out")(hidden))
    inputs = {"a": X, "b": np.ones((64, 3), "float32")}
    for pattern in (SNIP(0.5), GraSP(0.5), SynFlow(0.5)):
        masked = strategies.apply(model, pattern, data=(inputs, Y), loss="mse")
        assert masked.plan.sparsity == 0.5
        model = masked.export_plain()


@pytest.mark.parametrize("make", [SNIP, GraSP])
def test_a_dataset_of_batches_is_read_until_there_are_enough_samples(make: Any) -> None:
    """It gives the masks that its first samples give as arrays."""
    model, read = line(), []

    def batches() -> Any:
        for start in range(0, 64, 8):
            read.append(start)
            yield X[start : start + 8], Y[start : start + 8]

    spec = tf.TensorSpec((None, 5)), tf.TensorSpec((None, 2))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=spec)
    options = {"targets": "*", "loss": "mse"}
    masked = strategies.apply(model, make(0.5, samples=20), data=dataset, **options)
    assert read == [0, 8, 16]
    expected = strategies.apply(model, make(0.5), data=(X[:20], Y[:20]), **options)
    assert np.array_equal(masked.plan.weights[0].mask, expected.plan.weights[0].mask)
    # fewer samples than are wanted: all of them
    few = problem(model, dataset.take(2), None).sample(99, 0)
    assert np.array_equal(few.inputs, X[:16])
    assert np.array_equal(few.targets, Y[:16])


def test_a_dataset_of_dicts() -> None:
    pairs = ({"a": X, "b": Y}, {"c": Y})
    dataset = tf.data.Dataset.from_tensor_slices(pairs).batch(10)
    sample = problem(line(), dataset, None).sample(25, 0)
    assert np.array_equal(sample.inputs["b"], Y[:25])
    assert np.array_equal(sample.targets["c"], Y[:25])


# -- in a model ------------------------------------------------------------------------------


def convolutions() -> Any:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, name="conv"),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Flatten(),
            keras.layers.Dense(8, "relu", name="hidden"),
            keras.layers.Dense(3, "softmax", name="out"),
        ]
    )


IMAGES, LABELS = RNG.random((32, 8, 8, 1)), RNG.integers(3, size=32)


@pytest.mark.parametrize("scope", ["weight", "global"])
@pytest.mark.parametrize("make", [SNIP, GraSP, SynFlow])
def test_trains_and_holds(make: Callable[..., Pattern], scope: str) -> None:
    model, loss = convolutions(), "sparse_categorical_crossentropy"
    before = [np.array(v) for v in model.variables]
    masked = strategies.apply(
        model, make(0.8, scope), strategy="gradient_mask", held="init", data=(IMAGES, LABELS),
        loss=loss,
    )  # fmt: skip
    changed = [not np.array_equal(a, v) for a, v in zip(before, masked.variables, strict=False)]
    assert not any(changed), "computing the scores changed the model"
    counts = [int((~w.mask).sum()) for w in masked.plan.weights]
    sizes = [w.mask.size for w in masked.plan.weights]
    whole, parts = [round(0.8 * sum(sizes))], [round(0.8 * size) for size in sizes]
    assert (counts == parts) if scope == "weight" else ([sum(counts)] == whole)
    masked.compile("adam", loss)
    masked.fit(IMAGES, LABELS, verbose=0)
    assert strategies.audit(masked).ok


def test_without_values_the_counts_are_right() -> None:
    shapes = {"a/kernel": (20, 10), "b/kernel": (10, 30)}
    for pattern in (SNIP(0.8), GraSP(0.8), SynFlow(0.8)):
        masks = pattern.masks(shapes, 0)
        assert sum(int((~m).sum()) for m in masks.values()) == 400
        assert pattern.needs_model


def test_part_of_a_union() -> None:
    union = strategies.Union((SNIP(0.5), strategies.Columns(indices=(0,))))
    assert union.needs_model
    masked = strategies.apply(chain(), union, data=(X, RNG.random((64, 3))), loss="mse")
    assert not any(w.mask[:, 0].any() for w in masked.plan.weights)
    assert masked.plan.sparsity > 0.5


# -- bad calls -------------------------------------------------------------------------------

PAIRS = tf.data.Dataset.from_tensor_slices((X, Y))


def snip(data: Any) -> Any:
    return strategies.apply(line(), SNIP(), targets="*", data=data, loss="mse")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: strategies.apply(line(), SNIP(), targets="*"), "data=None: must be inputs"),
        (lambda: strategies.apply(line(), GraSP(), targets="*", data=(X, Y)), "loss=None: must"),
        (
            lambda: strategies.apply(line(), SNIP(), targets="*", data=(X, Y), loss="mean"),
            "loss='mean': must be a loss of Keras",
        ),
        (lambda: snip(X), "data=ndarray: must be (inputs, targets), or a tf.data.Dataset of"),
        (lambda: snip((X, Y, Y)), "data=tuple: must be (inputs, targets)"),
        (lambda: snip({"x": X, "y": Y}), "data=dict: must be (inputs, targets)"),
        (
            lambda: snip(PAIRS.map(lambda x, y: x).batch(8)),
            "data=a tf.data.Dataset of inputs only: must be (inputs, targets), or",
        ),
        (
            lambda: snip(PAIRS.map(lambda x, y: {"x": x, "y": y}).batch(8)),
            "data=a tf.data.Dataset of inputs only: must be",
        ),
        (
            lambda: snip(PAIRS.map(lambda x, y: (x, y, y)).batch(8)),
            "data=a tf.data.Dataset of 3 parts: must be",
        ),
        (lambda: snip(PAIRS), "must be one of batches of as many inputs as targets"),
        (
            lambda: snip(PAIRS.map(lambda x, y: (x, y[0]))),
            "must be one of batches of as many inputs as targets",
        ),
        (lambda: snip(PAIRS.batch(8).take(0)), "data=a tf.data.Dataset: must be one that is not"),
        (lambda: SNIP(samples=0), "samples=0: must be at least 1"),
        (lambda: SynFlow(rounds=0), "rounds=0: must be at least 1"),
        (lambda: SNIP(1.0), "sparsity=1.0"),
        (lambda: GraSP(0.5, "layer"), "scope=layer: must be weight or global"),  # type: ignore[arg-type]
        (lambda: SNIP().from_weights({KERNEL: np.ones((5, 2))}, 0), "with a model and its data"),
        (
            lambda: strategies.apply(line(), SNIP(), targets="*", data=(X * 0, Y), loss="mse"),
            "all are zero",
        ),
        (
            lambda: strategies.apply(line(), SNIP(), targets="*", data=(X / 0, Y), loss="mse"),
            "not finite",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_bad_call_is_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(Invalid) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
