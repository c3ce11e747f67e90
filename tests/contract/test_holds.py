"""A strategy holds what is masked, bit for bit at every step, and moves what is kept."""

from __future__ import annotations

import pytest
import tensorflow as tf

from masksweep.strategies import STRATEGIES, Invalid
from masksweep.strategies.core.audit import moved, violations

from .cases import CASES, HELD, HOLDING, OPTIMIZERS, begin
from .situations import network
from .trial import Trial

STEPS = 10


def assert_held(case: str, optimizer: str, held: str, *, jit: bool = False) -> None:
    """Held at every step, or the leak that is documented."""
    trial = begin(case, optimizer, held, jit=jit)
    found = [violations(weights, trial.plan) for weights in trial.steps(STEPS)]
    leak = CASES[case].leaks.get((optimizer, held))
    if leak is None:
        assert found == [(0, 0.0)] * STEPS
    else:
        count, drift = found[-1]
        assert count > 0
        assert (drift > 0) == (leak == "values")


def test_every_strategy_has_an_entry() -> None:
    assert {case.strategy.name for case in CASES.values()} == set(STRATEGIES)


@pytest.mark.parametrize(
    ("case", "held"), [(c, h) for c in CASES for h in HELD if h not in CASES[c].refuses]
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_holds_at_every_step(case: str, optimizer: str, held: str) -> None:
    assert_held(case, optimizer, held)


@pytest.mark.parametrize(
    ("case", "held"), [(c, h) for c in CASES for h in HELD if h in CASES[c].refuses]
)
def test_refuses_a_held_value(case: str, held: str) -> None:
    found, model = CASES[case], network()
    plan = found.plan(model, held)
    reason = found.strategy.refuses(plan)
    assert reason is not None
    assert found.refuses[held] in reason
    with pytest.raises(Invalid, match=found.refuses[held]):
        Trial(found.strategy, model, plan, OPTIMIZERS["sgd"]())


@pytest.mark.parametrize("case", CASES)
def test_under_xla(case: str) -> None:
    if CASES[case].strategy.xla:
        assert_held(case, "adam", "zero", jit=True)
    else:
        with pytest.raises(tf.errors.InvalidArgumentError, match="XLA"):
            begin(case, "adam", jit=True).end(1)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", HOLDING)
def test_moves_every_kept_weight(case: str, optimizer: str) -> None:
    trial = begin(case, optimizer)
    start = trial.weights()
    assert moved(start, trial.end(STEPS), trial.plan) == 1


@pytest.mark.parametrize("case", CASES)
def test_trains_the_models_own_variables(case: str) -> None:
    """So an optimizer meets the objects, names and paths that it meets under `fit`."""
    trial = begin(case, "adam")
    for value, variable in zip(trial.training.values, trial.model.trainable_variables, strict=True):
        assert value is variable or tuple(value.shape) != tuple(variable.shape)
        assert (value.name, value.path) == (variable.name, variable.path)
