"""Weights and statistics that `trainable` leaves out do not change, and the audit checks it."""

from __future__ import annotations

from typing import Any

import pytest

from masksweep.strategies import Invalid
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.report.results_table import rows
from masksweep.sweeps.report.verdicts import describe_problem
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.training import preflight
from masksweep.sweeps.training.run_trial import run
from tests.support.trials import trial as make

HEAD: dict[str, Any] = {
    "strategy": "projection",
    "pattern": {"name": "columns", "indices": [0]},
    "held": "init",
    "targets": ["output/*"],
    "outputs_held": [0],
    "trainable": ["output/*"],
    "model": {"name": "mlp", "hidden": [12], "batch_norm": True},
    "train": {"epochs": 2, "batch_size": 100, "jit": False},
}


def ended(**sections: Any) -> TrialResult:
    return run(make(**HEAD | sections))


def test_a_frozen_body_has_no_statistics_that_go_on() -> None:
    metrics = ended().metrics
    assert metrics["integrity/ok"] == 1
    assert (metrics["integrity/frozen_violations"], metrics["integrity/output_drift"]) == (0, 0)


def test_statistics_that_go_on_are_named_as_the_cause() -> None:
    trial = make(**HEAD, statistics=["*"])
    result = run(trial)
    assert result.metrics["integrity/ok"] == 0
    assert result.metrics["integrity/violations"] == 0
    assert result.tags["integrity.through"] == "statistics of norm_1"
    outcome = Outcome(trial, "", "ok", result)
    (row,) = rows([outcome])
    assert row.verdict == "MOVES in 1 of 1"
    assert describe_problem([outcome]) == f": {trial.name}, through statistics of norm_1"


def test_weights_before_the_held_output_are_named_as_the_cause() -> None:
    result = ended(trainable=["output/*", "hidden_1/*"])
    assert result.metrics["integrity/ok"] == 0
    assert result.tags["integrity.through"] == "weights of hidden_1"


def test_the_key_of_statistics_is_part_of_what_a_trial_is() -> None:
    ids = {make(**HEAD, statistics=s).id for s in (None, ["*"], [], ["norm_1/*"])}
    assert len(ids) == 4
    plain = {"name": "mlp", "hidden": [12]}
    assert (
        make(**HEAD | {"model": plain}).canonical().keys()
        == make(train=HEAD["train"]).canonical().keys()
    )


def test_a_glob_of_statistics_must_match() -> None:
    with pytest.raises(Invalid, match="matches no") as caught:
        preflight.check_plans([make(**HEAD, statistics=["norm_2/*"])])
    assert (caught.value.key, caught.value.value) == ("statistics", "norm_2/*")
