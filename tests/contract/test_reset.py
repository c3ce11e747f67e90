"""One compiled program serves every mask of its shape."""

from __future__ import annotations

from dataclasses import replace

import pytest

from masksweep.strategies import Invalid, Plan
from masksweep.strategies.core.audit import same

from .cases import CASES, HELD, OPTIMIZERS, begin
from .situations import network
from .trial import Trial

STEPS = 5


def everything(trial: Trial) -> list[bytes]:
    """All that a step can change, bit for bit, after each of some steps."""
    return [
        array.tobytes()
        for weights in trial.steps(STEPS)
        for array in [*weights.values(), *trial.state(), *trial.slots()]
    ]


def fresh(case: str, seed: int) -> Trial:
    found, model = CASES[case], network()
    return Trial(found.strategy, model, found.plan(model, seed=seed), OPTIMIZERS["adam"]())


@pytest.mark.parametrize("case", CASES)
def test_equals_a_fresh_start(case: str) -> None:
    first = everything(begin(case, "adam"))
    second = everything(begin(case, "adam", seed=1))
    assert second == everything(fresh(case, seed=1))
    assert (second != first) == (CASES[case].strategy.role != "dense")


@pytest.mark.parametrize("case", CASES)
def test_traces_once(case: str) -> None:
    for seed in range(3):
        trial = begin(case, "adam", seed=seed)
        trial.end(STEPS)
    assert trial.step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    ("case", "held"), [(c, h) for c in CASES for h in HELD if h in CASES[c].refuses]
)
def test_refuses_a_held_value(case: str, held: str) -> None:
    with pytest.raises(Invalid, match=CASES[case].refuses[held]):
        begin(case, "sgd", held)


def test_refuses_other_weights() -> None:
    trial = begin("weight_mask", "sgd")
    for targets in (["output/kernel"], ["*/kernel"]):
        with pytest.raises(Invalid):
            trial.begin(CASES["weight_mask"].plan(network(), targets=targets))


def test_refuses_held_values_that_are_not_one_after_one_for_all() -> None:
    trial, model = begin("weight_mask", "sgd", "constant"), network()
    before = trial.weights()
    for change in (trial.begin, trial.training.switch):
        with pytest.raises(Invalid, match="held values of another kind"):
            change(CASES["weight_mask"].plan(model, "init"))
    assert same(trial.weights(), before)


def test_one_held_value_for_all_goes_where_each_had_its_own() -> None:
    trial, model = begin("weight_mask", "sgd", "init"), network()
    constant = trial.begin(CASES["weight_mask"].plan(model, "constant"))
    expected = begin("weight_mask", "sgd", "constant").end(STEPS)
    assert same(constant.end(STEPS), expected)


def test_refuses_a_scattered_mask() -> None:
    """Its first row has as many kept outputs as the columns before, so that its layout fits."""
    trial = begin("var_list", "sgd")
    (old,) = trial.plan.weights
    mask = old.mask.copy()
    mask[1:] = ~mask[1:]
    with pytest.raises(Invalid, match="whole outputs"):
        trial.begin(Plan((replace(old, mask=mask),)))
