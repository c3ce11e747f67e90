"""Weights outside of `trainable` stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.strategies.core.audit import bits, violations

from .cases import CASES, OPTIMIZERS
from .situations import network
from .trial import Trial


def trial(case: str, *trainable: str) -> Trial:
    found, model = CASES[case], network()
    optimizer = OPTIMIZERS["adamw"]()
    return Trial(found.strategy, model, found.plan(model), optimizer, trainable=trainable)


@pytest.mark.parametrize("case", CASES)
def test_only_what_matches_moves(case: str) -> None:
    narrow = trial(case, "output/*", "*/gamma")
    start = narrow.weights()
    end = narrow.end(5)
    moved = {n for n in start if not np.array_equal(bits(start[n]), bits(end[n]))}
    assert moved == {"output/kernel", "output/bias", "norm/gamma"}


def test_a_masked_weight_that_does_not_train_is_held() -> None:
    for case in ("init_only", "projection"):
        narrow = trial(case, "output/*")
        assert violations(narrow.end(5), narrow.plan) == (0, 0.0)


def test_a_glob_must_match() -> None:
    with pytest.raises(Invalid, match="matches no weight") as caught:
        trial("projection", "output/*", "other/*")
    assert (caught.value.key, caught.value.value) == ("trainable", "other/*")
