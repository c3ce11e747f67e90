"""What a strategy calls its effective weights is what its model computes with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from masksweep.strategies.base import Array
from masksweep.strategies.core.audit import AGREEMENT, bake, same, violations
from masksweep.strategies.core.weights import values

from .cases import CASES, OPTIMIZERS, begin
from .probes import PROBES, probe
from .situations import network
from .trial import Trial


def assert_close(live: Array, other: Array) -> None:
    assert np.abs(live - other).max() <= AGREEMENT * max(1, np.abs(live).max())


TAKEN = [(c, kind) for c in CASES for kind in PROBES if kind not in CASES[c].refuses]


@pytest.mark.parametrize(("case", "kind"), TAKEN)
def test_probing_finds_the_effective_weights(case: str, kind: str) -> None:
    found, model = CASES[case], PROBES[kind]()
    plan = found.plan(model, targets=["output/kernel"])
    trial = Trial(found.strategy, model, plan, OPTIMIZERS["adam"]())
    for _ in range(3):
        np.testing.assert_array_equal(probe(trial), trial.weights()["output/kernel"])
        trial.end(1)


@pytest.mark.parametrize("case", CASES)
def test_baked_saved_and_reloaded(case: str, tmp_path: Path) -> None:
    held = "zero" if "constant" in CASES[case].refuses else "constant"
    trial = begin(case, "adam", held)
    weights = trial.end(5)
    loaded = bake(network(), weights, trial.state(), tmp_path / "model.keras")
    assert same(values(loaded), weights)
    assert violations(values(loaded), trial.plan) == violations(weights, trial.plan)
    assert_close(trial.outputs(), np.asarray(loaded(trial.x, training=False)))


@pytest.mark.parametrize("case", CASES)
def test_starts_with_what_the_model_does_not_train(case: str) -> None:
    """Such as the statistics of a trained model, and its frozen layers."""
    found, model = CASES[case], network()
    norm = model.get_layer("norm")
    norm.trainable = False
    for number, variable in enumerate(norm.variables, 1):
        variable.assign(np.full(variable.shape, number))
    trial = Trial(found.strategy, model, found.plan(model), OPTIMIZERS["sgd"]())
    for mine, own in zip(trial.state(), model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(mine, own.numpy())
    for variable, weight in zip(model.trainable_variables, trial.weights().values(), strict=True):
        variable.assign(weight)
    assert_close(trial.outputs(), np.asarray(model(trial.x, training=False)))
