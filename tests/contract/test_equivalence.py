"""Strategies that hold the same weights train to the same weights at each step (the path)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from masksweep.strategies import Plan, Strategy
from masksweep.strategies.core.audit import digest
from masksweep.strategies.dense import Dense
from masksweep.strategies.gradient_mask import GradientMask
from masksweep.strategies.patterns import Pattern
from masksweep.strategies.patterns.block import Block
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.patterns.rows import Rows
from masksweep.strategies.plan import Array
from masksweep.strategies.projection import Projection
from masksweep.strategies.sparse_tensor import SparseTensor
from masksweep.strategies.testing.case import OPTIMIZERS, Case
from masksweep.strategies.testing.documented import CASES
from masksweep.strategies.testing.networks import network
from masksweep.strategies.testing.trial import Trial, loss
from masksweep.strategies.weight_mask import WeightMask

STEPS = 20
ALIKE = ["weight_mask", "gradient_mask", "projection", "hard_mask", "sparse_values"]


def path(case: str, optimizer: str) -> list[str]:
    return [digest(weights) for weights in CASES[case].begin(optimizer).steps(STEPS)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_same_path_bit_for_bit(optimizer: str) -> None:
    for first, second in pairwise(ALIKE):
        assert path(first, optimizer) == path(second, optimizer), f"{first} and {second} differ"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_control_leaves_that_path(optimizer: str) -> None:
    assert path("init_only", optimizer) != path("weight_mask", optimizer)


def test_a_norm_over_all_gradients_tells_them_apart() -> None:
    """The norm of `projection` includes the gradients of masked entries."""

    def end(strategy: Strategy) -> dict[str, Array]:
        model = network()
        optimizer = keras.optimizers.SGD(0.1, global_clipnorm=0.01)
        return Trial(strategy, model, CASES["projection"].begin("sgd").plan, optimizer).end(STEPS)

    assert digest(end(Projection())) != digest(end(GradientMask()))


HIDDEN: dict[str, Any] = {
    "dense": lambda: layers.Dense(8, "tanh", name="masked"),
    "conv1d": lambda: layers.Conv1D(4, 3, 2, "same", activation="tanh", name="masked"),
    "einsum": lambda: layers.EinsumDense("ab,bcd->acd", (2, 4), "tanh", "d", name="masked"),
}


@pytest.mark.parametrize(("hidden", "format"), list(product(HIDDEN, ("coo", "lookup", "compiled"))))
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_sparse_tensor_comes_close(optimizer: str, format: str, hidden: str) -> None:
    """The outputs are equal up to rounding.

    The model has no BatchNormalization. With it, some gradients cancel to rounding errors, which
    Adam scales up.
    """

    def steps(strategy: Strategy) -> Iterator[dict[str, Array]]:
        keras.utils.set_random_seed(7)
        shape = (6, 2) if hidden == "conv1d" else (6,)
        stack = [HIDDEN[hidden](), layers.Flatten(), layers.Dense(4)]
        model = keras.Sequential([keras.Input(shape), *stack])
        plan = Case(strategy).plan(model)
        return Trial(strategy, model, plan, OPTIMIZERS[optimizer]()).steps(STEPS)

    for sparse, dense in zip(steps(SparseTensor(format)), steps(WeightMask()), strict=True):
        for value, expected in zip(sparse.values(), dense.values(), strict=True):
            np.testing.assert_allclose(value, expected, rtol=0, atol=1e-6)


def test_a_scaled_loss_changes_no_path() -> None:
    """Mixed precision scales the loss to avoid underflow."""

    def end(**knobs: float) -> dict[str, Array]:
        model = network()
        optimizer = keras.optimizers.SGD(0.1, **knobs)
        plan = CASES["projection"].begin("sgd").plan
        return Trial(GradientMask(), model, plan, optimizer).end(STEPS)

    for scaled, unscaled in zip(end(loss_scale_factor=256.0).values(), end().values(), strict=True):
        np.testing.assert_allclose(scaled, unscaled, rtol=0, atol=1e-5)


def test_dense_is_what_fit_does() -> None:
    model, fitted = network(), network()
    trial = Trial(Dense(), model, Plan(), OPTIMIZERS["adam"]())
    weights = trial.end(STEPS)
    fitted.compile(OPTIMIZERS["adam"](), loss=loss, jit_compile=False)
    for _ in range(STEPS):
        fitted.train_on_batch(trial.x, trial.y)
    for value, variable in zip(weights.values(), fitted.trainable_variables, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())
    for value, variable in zip(trial.state(), fitted.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())


@pytest.mark.slow  # 200 steps twice
@pytest.mark.parametrize(
    ("format", "pattern"),
    [("compiled", Random(0.9)), ("block", Block(0.75, (16, 16))), ("compact", Rows(0.5))],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_faster_format_trains_as_a_masked_dense_kernel(
    optimizer: str, format: str, pattern: Pattern
) -> None:
    """The weights differ by rounding only, after 200 steps."""
    rates = {"sgd": 0.01, "adam": 0.001}

    def end(strategy: Strategy) -> dict[str, Array]:
        keras.utils.set_random_seed(7)
        stack = [layers.Dense(64, "tanh", name=name) for name in ("masked", "hidden")]
        model = keras.Sequential([keras.Input((64,)), *stack, layers.Dense(4, name="output")])
        plan = Case(strategy, pattern).plan(model, targets=["masked/kernel", "hidden/kernel"])
        chosen = keras.optimizers.get({"class_name": optimizer, "config": {}})
        chosen.learning_rate = rates[optimizer]
        return Trial(strategy, model, plan, chosen).end(200)

    dense = end(WeightMask())
    for name, value in end(SparseTensor(format)).items():
        np.testing.assert_allclose(value, dense[name], rtol=0, atol=1e-5)
