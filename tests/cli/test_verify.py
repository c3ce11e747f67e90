"""Tests of `masksweep verify`, and of the claims in the package's experiments."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from masksweep.sweeps.cli import main
from masksweep.sweeps.cli.verify import EXPERIMENTS, experiments_with_claims
from masksweep.sweeps.composing.command_line import compose_plan
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.config.selection import select
from tests.support.sweep_process import local_store, ran, sweep

QUESTIONS = ("selective_zero", "sparse_variable", "constant_weight", "freeze_output")


@pytest.fixture(autouse=True)
def elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hydra_restore_singletons: None
) -> None:
    monkeypatch.chdir(tmp_path)


@cache
def plan(name: str) -> Sequence[PlannedTrial]:
    return tuple(compose_plan([f"+experiment={name}"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", experiments_with_claims())
def test_every_claim_is_about_some_trials(name: str) -> None:
    trials = plan(name)
    parts = {p.trial.id: p.parts for p in trials}
    outcomes = [Outcome(p.trial, p.variant, "ok") for p in trials]
    claims = trials[0].trial.sweep.claims
    assert claims
    for claim in claims.values():
        for selection in filter(None, (claim.trials, claim.minus)):
            chosen = select(selection, outcomes, parts)
            assert chosen, f"{name}: {claim.says}"
            assert len({o.trial.seed for o in chosen}) >= claim.seeds


def test_all_experiments_of_verify_make_claims() -> None:
    assert set(EXPERIMENTS) | set(QUESTIONS) <= set(experiments_with_claims())


def test_an_unknown_experiment_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["verify", "--only", "nope"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("masksweep: --only=nope: one of ")
    assert "constant_weight" in message


@pytest.mark.slow
def test_claims_are_checked_shown_and_recorded(tmp_path: Path) -> None:
    with sweep(tmp_path, "--only", "selective_zero", command=("verify",)) as driver:
        assert driver.wait() == 0, driver.stderr
    assert "7 of 7 claims hold" in driver.stdout
    store = local_store(tmp_path, "selective_zero")
    assert "| zero_weight: " in store.parent.data.tags["mlflow.note.content"]
    # a claim that does not hold is a failure of the run
    config = tmp_path / "mine" / "experiment"
    config.mkdir(parents=True)
    text = (Path(main.__file__).parents[2] / "conf/experiment/selective_zero.yaml").read_text()
    wrong = text.replace("at_most: 1.0e-6", "below: 0.0")
    (config / "mine.yaml").write_text(wrong)
    driver = ran(tmp_path, "+experiment=mine", "--config-dir", "mine")
    assert driver.code == 1
    assert "FAIL" in driver.stdout
    assert store.by_status() == {"FINISHED": 54}  # nothing ran again
