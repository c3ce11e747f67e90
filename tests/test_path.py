"""Two strategies side by side: where they part."""

from __future__ import annotations

import pytest

from strategies import Invalid
from sweeps import trial
from tests.trials import trial as make

TRAIN = {"steps": 12, "batch_size": 100, "jit": False}


def run(**sections: object) -> dict[str, float]:
    made = make(train=TRAIN, speed={"rounds": 0}, **sections)
    result = trial.run(made)
    assert result.status == "ok", result.reason
    return {k: v for k, v in result.metrics.items() if k.startswith("path/")}


def test_strategies_that_walk_the_same_path_never_part() -> None:
    assert run(strategy="gradient_mask", compare="projection") == {"path/distance": 0}


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
    result = trial.run(make(train=TRAIN, strategy="projection", compare="var_list"))
    assert result.status == "skipped"
    assert result.reason.startswith("compare: var_list: ")


def test_a_strategy_is_not_compared_with_itself() -> None:
    with pytest.raises(Invalid, match="compare=projection"):
        make(strategy="projection", compare="projection")
