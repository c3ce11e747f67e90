"""Tests of `var_list`: it trains to the same weights as a mask, with smaller products."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from itertools import product
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from masksweep.strategies.core.training import Training
from masksweep.strategies.core.weights import MaskMaker, describe, make_plan, values
from masksweep.strategies.held.init import Init
from masksweep.strategies.patterns.columns import Columns
from masksweep.strategies.plan import Mask, MaskedWeight, Plan, Weight
from masksweep.strategies.var_list import VarList
from masksweep.strategies.weight_mask import WeightMask
from masksweep.sweeps.components.models.mlp import MLP
from masksweep.sweeps.components.optimizers.sgd import SGD
from tests.support.selection import by_default

LEAST = 1e-5
"""The least change of each weight, so that a test fails if a weight does not train."""


def plan_for(model: Any, masks: MaskMaker, targets: list[str] | None) -> Plan:
    """Returns a plan that holds masked entries at their initial values."""
    weights_and_values = describe(model), values(model)
    return make_plan(*weights_and_values, masks=masks, held=Init().values, targets=targets)


def products(training: Training, x: Any, y: Any) -> list[tuple[int, ...]]:
    """Returns the shapes of all matrix products in the graph of a step whose results are used."""
    step = tf.function(training.step, autograph=False).get_concrete_function(x, y)
    operations, to_visit = (
        {},
        [*step.outputs, *(o for o in step.graph.get_operations() if "Assign" in o.type)],
    )
    while to_visit:
        tensor_or_operation = to_visit.pop()
        op = getattr(tensor_or_operation, "op", tensor_or_operation)
        if op.name not in operations:
            operations[op.name] = op
            to_visit += [t.op for t in op.inputs]
    return [tuple(o.outputs[0].shape) for o in operations.values() if "MatMul" in o.type]


def test_var_list_computes_no_gradient_of_frozen_columns() -> None:
    model = MLP(hidden=(40, 30), dropout=0.1).build((20,), 10)
    x, y = tf.zeros((32, 20)), tf.zeros(32, tf.int32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def shapes(strategy: Any) -> set[tuple[int, ...]]:
        plan = plan_for(model, Columns(0.9).from_weights, None)
        optimizer = keras.optimizers.SGD()
        return set(products(Training(model, strategy, plan, optimizer=optimizer, loss=loss), x, y))

    assert {(20, 40), (40, 30)} <= shapes(WeightMask())
    assert not {(20, 40), (40, 30)} & shapes(VarList())
    assert {(4, 20), (3, 40)} <= shapes(VarList())


Build = Callable[[Any, int], Any]


def apart(y: Any, units: int) -> Any:
    y = keras.layers.Activation("tanh")(keras.layers.Dense(units)(y))
    return keras.layers.Dropout(0.0)(y)


def shared(y: Any, units: int) -> Any:
    """Applies a layer to its own outputs."""
    layer = keras.layers.Dense(units, activation="tanh")
    return layer(layer(keras.layers.Dense(units)(y)))


class Within(keras.layers.Layer):
    """Applies another layer, which the model also applies by itself."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def call(self, x: Any) -> Any:
        return self.inner(x)


def within(y: Any, units: int) -> Any:
    """Applies a layer twice; the second time inside `Within`, so the model's graph lacks it."""
    layer = keras.layers.Dense(units, activation="tanh")
    first, other = (keras.layers.Dense(units, activation="tanh")(y) for _ in range(2))
    return keras.layers.Add()([layer(first), Within(layer)(other)])


BUILDS: dict[str, Build] = {
    "plain": lambda y, units: keras.layers.Dense(units, activation="tanh")(y),
    "apart": apart,
    "without biases": lambda y, units: keras.layers.Dense(units, use_bias=False)(y),
    "softmax": lambda y, units: keras.layers.Dense(units, activation="softmax")(y),
    "normed": lambda y, units: keras.layers.Dense(units)(keras.layers.LayerNormalization()(y)),
    "regularized": lambda y, units: keras.layers.Dense(units, kernel_regularizer="l2")(y),
    "shared": shared,
    "within": within,
    "trained activation": lambda y, units: keras.layers.Dense(
        units, activation=keras.layers.PReLU(keras.initializers.Constant(0.3))
    )(y),
}
PATHS = [(build, "the same") for build in ("apart", "normed", "shared", "within")]


@pytest.mark.parametrize(
    ("build", "biases"),
    [
        *by_default(PATHS, [(build, "the same") for build in BUILDS]),
        *by_default(
            [("plain", "others")], product(("plain", "apart", "within"), ("all", "others"))
        ),
    ],
)
def test_var_list_walks_the_path_of_masked_units(build: str, biases: str) -> None:
    """The weights are equal up to rounding, also where the bias has another mask, or none."""
    keras.utils.set_random_seed(0)
    inputs = y = keras.Input((6,))
    for units in (20, 15, 10):
        y = BUILDS[build](y, units)
    model = keras.Model(inputs, keras.layers.Dense(2)(y))
    model(np.zeros((1, 6), np.float32))  # builds the activation if it is a layer
    masks, layers = {}, list(dict.fromkeys(w.name.split("/")[0] for w in describe(model)))
    for w in describe(model):
        at = layers.index(w.name.split("/")[0]) % 4 + (biases == "others" and not w.is_kernel)
        if w.layer == "Dense" and w.shape[-1] > 2 and (w.is_kernel or biases != "all"):
            masks[w.name] = np.isin(np.arange(w.shape[-1]), [at, at + 3]) & np.ones(w.shape, bool)
    assert_same_path(model, masks, (6,))


@pytest.mark.parametrize(("shape", "wide"), [((20,), 7), ((3, 20), 7), ((20,), 300)])
def test_var_list_walks_the_path_of_a_masked_kernel(shape: tuple[int, ...], wide: int) -> None:
    """The weights are equal up to rounding.

    The kept columns are not the first ones, and not symmetric, so a wrong order would show.
    """
    keras.utils.set_random_seed(0)
    inputs = y = keras.Input(shape)
    for units in (wide, 5):
        y = keras.layers.Dense(units, activation="tanh")(y)
    model = keras.Model(inputs, keras.layers.Dense(2)(y))
    keep = {wide: [2, 3, 6], 5: [1, 4]}
    masks = {
        n: np.isin(np.arange(s[-1]), keep[s[-1]]) & np.ones(s, bool)
        for n, s in ((w.name, w.shape) for w in describe(model))
        if s[-1] in keep
    }
    training = assert_same_path(model, masks, shape)
    rest = next(iter(training.masked.values())).rest
    assert rest.shape[-1] == (320 if wide == 300 else wide - 3)  # 297, padded to a multiple of 64


def test_a_layer_with_more_than_kernel_and_bias_is_left_as_it_is() -> None:
    """With LoRA, the kernel of the layer is not a variable."""
    keras.utils.set_random_seed(0)
    inputs = y = keras.Input((6,))
    for units in (20, 15, 2):
        y = keras.layers.Dense(units, activation="tanh")(y)
    model = keras.Model(inputs, y)
    model.layers[1].enable_lora(2, a_initializer="ones", b_initializer="ones")
    name = f"{model.layers[2].name}/kernel"
    masks = {name: np.isin(np.arange(15), [2, 5]) & np.ones((20, 15), bool)}
    assert_same_path(model, masks, (6,))


def test_nothing_is_left_of_a_training_that_is_gone() -> None:
    """TensorFlow never frees a custom gradient, nor its graph with all variables."""
    model = MLP(hidden=(40, 30)).build((20,), 10)
    plan = plan_for(model, Columns(0.9).from_weights, ["hidden_*"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    training = Training(model, VarList(), plan, optimizer=SGD().build(), loss=loss)
    step = tf.function(training.step, autograph=False)
    step(tf.zeros((32, 20)), tf.zeros(32, tf.int32))
    references = [weakref.ref(v.value) for v in training.plan_variables]
    del training, step
    gc.collect()
    assert not any(ref() is not None for ref in references)


def assert_same_path(model: Any, masks: dict[str, Mask], shape: tuple[int, ...]) -> Training:
    """Asserts that `var_list` trains to the same weights as `weight_mask`.

    Returns:
        The training with `var_list`.
    """
    plan = plan_for(model, lambda weights, seed: {n: masks[n] for n in weights}, list(masks))
    rng = np.random.default_rng(0)
    x, y = (
        tf.constant(rng.standard_normal((16, *s), np.float32)) for s in (shape, (*shape[:-1], 2))
    )
    start, ends = list(values(model).values()), []
    for strategy in (WeightMask(), VarList()):
        for variable, value in zip(model.trainable_variables, start, strict=True):
            variable.assign(value)  # the training before changed the model's variables
        optimizer, loss = keras.optimizers.SGD(0.1), keras.losses.MeanSquaredError()
        training = Training(model, strategy, plan, optimizer=optimizer, loss=loss)
        step = tf.function(training.step, autograph=False)
        for _ in range(20):
            step(x, y)
        ends.append([np.asarray(v) for v in training.effective()])
    moved = [np.abs(a - b).max() for a, b in zip(ends[0], start, strict=True)]
    assert min(moved) > LEAST
    for masked_weight, split_weight in zip(*ends, strict=True):
        np.testing.assert_allclose(masked_weight, split_weight, atol=1e-6)
    return training


def test_a_scalar_is_no_whole_output() -> None:
    scalar = MaskedWeight(Weight("s/scale", (), "float32", "s"), np.array(False), np.float32(0))
    assert "whole outputs" in (VarList().refuses(Plan((scalar,))) or "")
