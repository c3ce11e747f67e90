"""Trials that train nothing: they show what the masks alone do to the score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masksweep.strategies import STRATEGIES
from masksweep.sweeps.components.optimizers import OPTIMIZERS
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.report.recommendation import sentences
from masksweep.sweeps.report.results_table import any_control_held, rows
from masksweep.sweeps.results import Report, TrialResult
from masksweep.sweeps.training import pack
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.run_trial import build_start, run
from masksweep.sweeps.training.setup import program_for
from masksweep.sweeps.training.state import PackMember
from tests.support.selection import by_default
from tests.support.trials import trial

NO_EPOCH = {"train": {"epochs": 0, "batch_size": 100, "jit": False}}
NO_RATE = {
    "train": {"epochs": 1, "batch_size": 500, "jit": False},
    "optimizer": {"name": "adam", "learning_rate": 0},
}


def make(**sections: Any) -> Trial:
    return trial(**{"speed": {"rounds": 0}, **sections})


@pytest.mark.parametrize("strategy", [n for n, s in STRATEGIES.items() if s.role == "strategy"])
def test_the_masks_are_applied_and_nothing_moves(strategy: str) -> None:
    sections: dict[str, Any] = {}
    if strategy == "row_lookup":
        sections = {"pattern": {"name": "rows"}}
    elif strategy in ("var_list", "loss_mask"):
        sections = {"pattern": {"name": "columns"}, "targets": ["output/kernel"]}
    untrained = make(strategy=strategy, **sections, **NO_EPOCH)
    result = run(untrained)
    assert result.status == "ok", result.reason
    assert result.metrics["integrity/moved"] == 0
    assert result.metrics["integrity/ok"] == 1
    assert result.tags["integrity.untrained"] == "train.epochs=0"


@pytest.mark.parametrize(
    "name", by_default(["sgd", "adamw", "lamb", "muon"], [n for n in OPTIMIZERS if n != "ftrl"])
)
def test_no_optimizer_moves_a_weight_at_rate_0(name: str) -> None:
    rate = {"name": name, "learning_rate": 0, "weight_decay": 0.1}
    if name == "adafactor":  # with its default, pixels that are always zero become NaN at any rate
        rate["epsilon_1"] = 1e-12
    result = run(make(strategy="gradient_mask", held="init", **{**NO_RATE, "optimizer": rate}))
    assert result.metrics["integrity/moved"] == 0
    assert result.metrics["integrity/ok"] == 1
    assert result.tags["integrity.untrained"] == "optimizer.learning_rate=0"


def test_without_an_epoch_the_score_is_that_of_the_masked_start() -> None:
    untrained = make(**NO_EPOCH)
    start = build_start(untrained, None)
    assert not isinstance(start, TrialResult)
    _, accuracy = program_for(start).evaluate(*start.data.test)
    result = run(untrained)
    assert result.metrics["test/accuracy"] == pytest.approx(accuracy)
    assert result.epochs == 0
    assert not {name for name in result.metrics if name.startswith(("train/", "speed/step"))}


def test_without_an_epoch_nothing_is_timed() -> None:
    assert "speed/ratio_to_dense" not in run(make(**NO_EPOCH, speed={"rounds": 1})).metrics


def test_a_leak_that_needs_no_training_still_fails() -> None:
    """The product of a mask and a negative weight is -0.0."""
    product = {"name": "weight_mask", "form": "product"}
    assert run(make(strategy=product, **NO_EPOCH)).metrics["integrity/ok"] == 0


def test_what_trained_must_still_move() -> None:
    trained = make(train={"steps": 1, "batch_size": 100, "epochs": 0, "jit": False})
    assert not trained.still_reason
    assert "integrity.untrained" not in run(trained).tags


def test_packs_do_the_same(tmp_path: Path) -> None:
    packed = [
        make(seed=s, train={"epochs": 0, "jit": True}, launch={"pack": 2}, speed={"rounds": 1})
        for s in (0, 1)
    ]
    reports: list[Report] = []
    members = [PackMember(t, reports.append, Checkpoints(str(tmp_path), t.id, 60)) for t in packed]
    results = pack.run(members)
    assert not [report.note for report in reports if report.note]  # such as that it was not timed
    for result in results:
        assert isinstance(result, TrialResult)
        assert result.metrics["integrity/ok"] == 1
        assert np.isfinite(result.metrics["test/accuracy"])


def test_reports_say_that_nothing_was_trained() -> None:
    outcomes = []
    for strategy in ("init_only", "weight_mask"):
        untrained = make(strategy=strategy, **NO_EPOCH)
        outcomes.append(Outcome(untrained, "", "ok", run(untrained)))
    control, strategy = rows(outcomes)
    assert (control.verdict, strategy.verdict) == ("inconclusive", "holds, untrained")
    assert control.problem == ": nothing was trained (train.epochs=0)"
    assert not any_control_held(outcomes)
    assert sentences(outcomes) == [("Leak", "no strategy was tried.")]


def test_a_schedule_fits_a_training_without_a_step() -> None:
    schedule = {"name": "cosine", "warmup_steps": 5}
    rate = {"name": "adam", "learning_rate": 0.01, "schedule": schedule}
    result = run(make(optimizer=rate, **NO_EPOCH))
    assert result.metrics["integrity/ok"] == 1
    assert result.metrics["integrity/moved"] == 0
