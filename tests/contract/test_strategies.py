"""Tests every strategy with the published checks, and with plans that change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from masksweep.strategies import STRATEGIES, Invalid, Plan
from masksweep.strategies.core.audit import same_weights, violations
from masksweep.strategies.testing import strategy_checks
from masksweep.strategies.testing.case import OPTIMIZERS
from masksweep.strategies.testing.documented import CASES
from masksweep.strategies.testing.networks import network
from masksweep.strategies.testing.trial import Trial

STEPS = 5
CHECKS = {name: strategy_checks(case) for name, case in CASES.items()}


@pytest.mark.parametrize(("case", "check"), [(c, check) for c in CASES for check in CHECKS[c]])
def test_strategy(case: str, check: str) -> None:
    CHECKS[case][check]()


def test_every_strategy_has_an_entry() -> None:
    assert {case.strategy.name for case in CASES.values()} == set(STRATEGIES)


# -- another plan ----------------------------------------------------------------------------


def test_refuses_other_weights() -> None:
    trial = CASES["weight_mask"].begin("sgd")
    for targets in (["output/kernel"], ["*/kernel"]):
        with pytest.raises(Invalid):
            trial.begin(CASES["weight_mask"].plan(network(), targets=targets))


def test_refuses_held_values_that_are_not_one_after_one_for_all() -> None:
    trial, model = CASES["weight_mask"].begin("sgd", "constant"), network()
    before = trial.weights()
    for change in (trial.begin, trial.training.switch):
        with pytest.raises(Invalid, match="held values of another kind"):
            change(CASES["weight_mask"].plan(model, "init"))
    assert same_weights(trial.weights(), before)


def test_one_held_value_for_all_goes_where_each_had_its_own() -> None:
    trial, model = CASES["weight_mask"].begin("sgd", "init"), network()
    constant = trial.begin(CASES["weight_mask"].plan(model, "constant"))
    expected = CASES["weight_mask"].begin("sgd", "constant").end(STEPS)
    assert same_weights(constant.end(STEPS), expected)


def test_refuses_a_scattered_mask() -> None:
    """The first row of the new mask keeps as many outputs as before, so its layout fits."""
    trial = CASES["var_list"].begin("sgd")
    (masked,) = trial.plan.weights
    mask = masked.mask.copy()
    mask[1:] = ~mask[1:]
    with pytest.raises(Invalid, match="whole outputs"):
        trial.begin(Plan((replace(masked, mask=mask),)))


# -- weights that do not train ---------------------------------------------------------------


def narrow(case: str, *trainable: str) -> Trial:
    entry, model = CASES[case], network()
    optimizer = OPTIMIZERS["adamw"]()
    return Trial(entry.strategy, model, entry.plan(model), optimizer, trainable=trainable)


def test_a_masked_weight_that_does_not_train_is_held() -> None:
    for case in ("init_only", "projection"):
        trial = narrow(case, "output/*")
        assert violations(trial.end(STEPS), trial.plan) == (0, 0.0)


def test_a_glob_must_match() -> None:
    with pytest.raises(Invalid, match="matches no weight") as caught:
        narrow("projection", "output/*", "other/*")
    assert (caught.value.key, caught.value.value) == ("trainable", "other/*")
