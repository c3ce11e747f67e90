"""Two strategies side by side: where they part."""

from __future__ import annotations

import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.strategies.base import Array
from masksweep.sweeps.training import run_trial
from masksweep.sweeps.training.program import Program
from tests.support.trials import trial as make

SGD = {"name": "sgd", "learning_rate": 0.1}
TRAIN: dict[str, object] = {"steps": 12, "batch_size": 100, "jit": False}


def run(**sections: object) -> dict[str, float]:
    made = make(**{"train": TRAIN, "speed": {"rounds": 0}, **sections})
    result = run_trial.run(made)
    assert result.status == "ok", result.reason
    return {k: v for k, v in result.metrics.items() if k.startswith("path/")}


def test_strategies_that_walk_the_same_path_never_part() -> None:
    assert run(strategy="gradient_mask", compare="projection") == {
        "path/parted": 0,
        "path/distance": 0,
    }


def test_the_control_parts_at_the_first_step() -> None:
    found = run(strategy="init_only", compare="projection")
    assert found["path/parted_step"] == 1
    assert found["path/distance"] > 1e-3


def test_a_norm_over_all_gradients_parts_them() -> None:
    clipped = {"name": "sgd", "learning_rate": 0.5, "global_clipnorm": 0.01}
    found = run(strategy="projection", compare="gradient_mask", optimizer=clipped)
    assert found["path/parted_step"] >= 1


def test_sparse_products_stay_close() -> None:
    lookup = {"name": "sparse_tensor", "format": "lookup"}
    for compare in ("sparse_tensor", lookup):
        assert 0 <= run(strategy="gradient_mask", compare=compare)["path/distance"] < 1e-5


def test_a_reference_that_refuses_skips_the_trial() -> None:
    result = run_trial.run(make(train=TRAIN, strategy="projection", compare="var_list"))
    assert result.status == "skipped"
    assert result.reason.startswith("compare: var_list: ")


def test_what_becomes_no_number_is_infinitely_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distance of 0 for NaN would pass every claim."""
    effective, calls = Program.effective, 0

    def broken(self: Program) -> dict[str, Array]:
        nonlocal calls
        calls += self.shape.strategy.name == "projection"
        found = effective(self)
        if calls > 20:  # the trial itself has ended, and the comparison has begun
            found["hidden_1/kernel"] = np.full_like(found["hidden_1/kernel"], np.nan)
        return found

    monkeypatch.setattr(Program, "effective", broken)
    found = run(strategy="gradient_mask", compare="projection", train={**TRAIN, "steps": 30})
    assert found["path/distance"] == np.inf
    assert found["path/parted"] == 1


def test_the_dense_control_is_compared_with_nothing() -> None:
    assert run(strategy="dense", compare="projection") == {}
    dense = [make(strategy="dense", compare=c).id for c in (None, "projection")]
    assert dense[0] == dense[1]


def test_xla_is_used_for_both_or_for_neither() -> None:
    """Else they would part by the compiler."""
    auto = {"steps": 5, "batch_size": 100}
    found = run(strategy="hard_mask", compare="sparse_tensor", train=auto, optimizer=SGD)
    plain = run(
        strategy="hard_mask", compare="sparse_tensor", train={**auto, "jit": False}, optimizer=SGD
    )
    assert found == plain
    with pytest.raises(Invalid, match="sparse_tensor does not compile under XLA"):
        make(strategy="hard_mask", compare="sparse_tensor", train={**auto, "jit": True})


def test_a_strategy_is_not_compared_with_itself() -> None:
    with pytest.raises(Invalid, match="compare=projection"):
        make(strategy="projection", compare="projection")
