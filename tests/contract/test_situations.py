"""Every strategy holds in every situation, or refuses it with a reason."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.strategies.core.audit import moved, violations

from .cases import CASES, OPTIMIZERS
from .situations import SITUATIONS
from .trial import Trial

STEPS = 4
REFUSED = [(c, s) for c, s in product(CASES, SITUATIONS) if s in CASES[c].refuses]
TAKEN = [both for both in product(CASES, SITUATIONS) if both not in REFUSED]


def begin(name: str, situation: str) -> Trial:
    case, found = CASES[name], SITUATIONS[situation]
    model = found.model()
    plan = case.plan(model, targets=found.targets, pattern=found.pattern)
    return Trial(case.strategy, model, plan, OPTIMIZERS["sgd"]())


@pytest.mark.parametrize(("case", "situation"), TAKEN)
def test_holds(case: str, situation: str) -> None:
    trial = begin(case, situation)
    start, state = trial.weights(), trial.state()
    found = [violations(weights, trial.plan)[0] for weights in trial.steps(STEPS)]
    if ("sgd", "zero") in CASES[case].leaks:
        assert found[-1] > 0
    else:
        assert found == [0] * STEPS
    assert moved(start, trial.weights(), trial.plan) == 1
    # moving statistics and seeds go on, too
    assert not any(np.array_equal(a, b) for a, b in zip(state, trial.state(), strict=True))


@pytest.mark.parametrize(("case", "situation"), REFUSED)
def test_refuses(case: str, situation: str) -> None:
    with pytest.raises(Invalid, match=CASES[case].refuses[situation]) as caught:
        begin(case, situation)
    assert (caught.value.key, caught.value.value) == ("strategy", CASES[case].strategy.name)
