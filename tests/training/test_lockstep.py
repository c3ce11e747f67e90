"""Two strategies compared step by step: whether and when their weights differ."""

from __future__ import annotations

import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.strategies.plan import Array
from masksweep.sweeps.training import run_trial
from masksweep.sweeps.training.program import Program
from tests.support.trials import trial as make

SGD = {"name": "sgd", "learning_rate": 0.1}
TRAIN: dict[str, object] = {"steps": 12, "batch_size": 100, "jit": False}


def run(**sections: object) -> dict[str, float]:
    trial = make(**{"train": TRAIN, "speed": {"rounds": 0}, **sections})
    result = run_trial.run(trial)
    assert result.status == "ok", result.reason
    return {k: v for k, v in result.metrics.items() if k.startswith("path/")}


def test_strategies_that_walk_the_same_path_never_part() -> None:
    assert run(strategy="gradient_mask", compare="projection") == {
        "path/parted": 0,
        "path/distance": 0,
    }


def test_the_control_parts_at_the_first_step() -> None:
    metrics = run(strategy="init_only", compare="projection")
    assert metrics["path/parted_step"] == 1
    assert metrics["path/distance"] > 1e-3


def test_a_norm_over_all_gradients_parts_them() -> None:
    clipped = {"name": "sgd", "learning_rate": 0.5, "global_clipnorm": 0.01}
    metrics = run(strategy="projection", compare="gradient_mask", optimizer=clipped)
    assert metrics["path/parted_step"] >= 1


def test_sparse_products_stay_close() -> None:
    lookup = {"name": "sparse_tensor", "format": "lookup"}
    for compare in ("sparse_tensor", lookup):
        assert 0 <= run(strategy="gradient_mask", compare=compare)["path/distance"] < 1e-5


def test_a_reference_that_refuses_skips_the_trial() -> None:
    result = run_trial.run(make(train=TRAIN, strategy="projection", compare="var_list"))
    assert result.status == "skipped"
    assert result.reason.startswith("compare: var_list: ")


def test_what_becomes_no_number_is_infinitely_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """If NaN counted as a distance of 0, a broken trial would pass every check of the distance."""
    effective, calls = Program.effective, 0

    def broken(self: Program) -> dict[str, Array]:
        nonlocal calls
        calls += self.shape.strategy.name == "projection"
        result = effective(self)
        if calls > 20:  # the trial has ended by then, and the comparison has begun
            result["hidden_1/kernel"] = np.full_like(result["hidden_1/kernel"], np.nan)
        return result

    monkeypatch.setattr(Program, "effective", broken)
    result = run(strategy="gradient_mask", compare="projection", train={**TRAIN, "steps": 30})
    assert result["path/distance"] == np.inf
    assert result["path/parted"] == 1


def test_the_dense_control_is_compared_with_nothing() -> None:
    assert run(strategy="dense", compare="projection") == {}
    ids = [make(strategy="dense", compare=c).id for c in (None, "projection")]
    assert ids[0] == ids[1]


@pytest.mark.slow  # compiles two strategies
def test_xla_is_used_for_both_or_for_neither() -> None:
    """Otherwise the compiler could make the weights differ."""
    auto = {"steps": 5, "batch_size": 100}
    auto_metrics = run(strategy="hard_mask", compare="sparse_tensor", train=auto, optimizer=SGD)
    eager_metrics = run(
        strategy="hard_mask", compare="sparse_tensor", train={**auto, "jit": False}, optimizer=SGD
    )
    assert auto_metrics == eager_metrics
    with pytest.raises(Invalid, match="sparse_tensor does not compile under XLA"):
        make(strategy="hard_mask", compare="sparse_tensor", train={**auto, "jit": True})


def test_a_strategy_is_not_compared_with_itself() -> None:
    with pytest.raises(Invalid, match="compare=projection"):
        make(strategy="projection", compare="projection")
