"""Patterns that score weights with the trial's own model, data and loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.sweeps.training.preflight import check_plans
from masksweep.sweeps.training.run_trial import run
from masksweep.sweeps.training.setup import start
from tests.support.trials import trial

PATTERNS: dict[str, dict[str, Any]] = {
    "snip": {"name": "snip", "sparsity": 0.7},
    "grasp": {"name": "grasp", "sparsity": 0.7},
    "synflow": {"name": "synflow", "sparsity": 0.7},
    "union": {"name": "union", "of": [{"name": "snip", "sparsity": 0.7}, "columns"]},
}


def masks(**sections: Any) -> list[Any]:
    return [w.mask for w in start(trial(**sections)).plan.weights]


@pytest.mark.parametrize("name", PATTERNS)
def test_the_same_trial_has_the_same_masks(name: str) -> None:
    first, again = (masks(pattern=PATTERNS[name]) for _ in range(2))
    other = masks(pattern=PATTERNS[name], seed=1)
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


def test_the_masks_depend_on_the_data_and_the_loss() -> None:
    """Synaptic flow uses neither."""
    for name, depends in (("snip", True), ("grasp", True), ("synflow", False)):
        first = masks(pattern=PATTERNS[name])
        other = masks(pattern=PATTERNS[name], data={"name": "digits", "validation": 0.5})
        assert all(map(np.array_equal, first, other)) is not depends, name


def test_a_trial_holds_them() -> None:
    result = run(trial(pattern=PATTERNS["snip"], strategy="hard_mask"))
    assert result.metrics["integrity/ok"] == 1


def test_the_plan_is_checked_without_data() -> None:
    """It does not say what is cut off, because that depends on the scores."""
    (answer,) = check_plans([trial(pattern=PATTERNS["snip"])])
    assert (answer.refusal, answer.cut_off) == ("", "")


def test_new_masks_during_the_training_are_refused() -> None:
    with pytest.raises(Invalid, match=r"train\.switch_at=3: not with union"):
        trial(pattern=PATTERNS["union"], train={"steps": 8, "switch_at": 3})
