"""Tests of `masksweep verify`."""

from __future__ import annotations

from pathlib import Path

import pytest

from masksweep.sweeps.cli import main
from masksweep.sweeps.cli.verify import EXPERIMENTS, experiments_with_claims
from tests.support.sweep_process import local_store, ran, sweep

QUESTIONS = ("selective_zero", "sparse_variable", "constant_weight", "freeze_output")


@pytest.fixture(autouse=True)
def elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hydra_restore_singletons: None
) -> None:
    monkeypatch.chdir(tmp_path)


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
