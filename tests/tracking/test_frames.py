"""Tests of reading results: data frames of trials and curves."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path

import pytest

from masksweep import sweeps
from masksweep.strategies import Invalid
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking import resume
from masksweep.sweeps.tracking.stored_sweep import OF_EACH_TRIAL, load_sweeps
from tests.support.sweep_process import local_store
from tests.support.trials import trial as make

TRIALS = [make(strategy=s, seed=n) for s in ("dense", "weight_mask") for n in (0, 1)]
SKIPPED = make(strategy="var_list")
FAILED = make(strategy="projection", optimizer={"name": "adam", "learning_rate": 1e-7})


def record(
    name: str, trials: Sequence[Trial], again: bool = False, tags: Mapping[str, str] | None = None
) -> None:
    """Records a sweep in the store of the current folder, without training."""
    planned = [PlannedTrial(t, []) for t in trials]
    with resume.open_sweep(planned, name, rerun=True) as (_, recorder, _):
        recorder.start_sweep("note", [], tags=tags)
        recorder.sender.start()
        for trial in trials:
            recorder.start_trial(trial, trial.name, again=again)
            for epoch in (1, 2):
                recorder.log(trial, epoch, {"train/loss": trial.seed + 1 / epoch})
            if trial is FAILED:
                recorder.fail_trial(trial, "a reason", {})
            elif trial is SKIPPED:
                recorder.end_trial(trial, TrialResult("skipped", "another"))
            else:
                metrics = {"test/accuracy": 0.5 + trial.seed, "integrity/ok": 1.0}
                recorder.end_trial(trial, TrialResult("ok", metrics=metrics, epochs=2))
        recorder.end_sweep("FINISHED", "note", {})
        assert recorder.sender.finish(60)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder / "mlflow.db")
    with chdir(folder):
        record("one", [*TRIALS, SKIPPED, FAILED])
        record("two", TRIALS[:1])
    return folder


def test_a_row_is_a_trial_with_its_settings_and_metrics(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store)
    trials = sweeps.load("one").trials
    assert list(trials["status"]) == ["ok"] * 4 + ["skipped", "failed"]
    assert list(trials["reason"])[-2:] == ["another", "a reason"]
    first, last = trials.iloc[3], trials.iloc[-1]
    assert (first["strategy"], first["seed"], first["pattern.sparsity"]) == ("weight_mask", 1, 0.5)
    assert first["test/accuracy"] == 1.5
    assert first["model.batch_norm"] is False or first["model.batch_norm"] == False  # noqa: E712
    assert last["optimizer.learning_rate"] == 1e-7
    means = trials.groupby("strategy")["test/accuracy"].mean()
    assert means["dense"] == means["weight_mask"] == 1.0


def test_curves_have_a_row_for_each_point(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store)
    trials, curves = sweeps.load("one")
    curve = curves[curves["run_id"] == trials["run_id"][3]]
    points = curve[curve["metric"] == "train/loss"]
    assert list(zip(points["epoch"], points["value"], strict=True)) == [(1, 2.0), (2, 1.5)]
    assert set(curves["metric"]) == {"train/loss", "test/accuracy"}


def test_a_sweep_is_the_latest_or_of_a_name_or_an_id(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store)
    parent = local_store(store, "one").parent.info.run_id
    assert list(sweeps.load().trials["sweep"]) == ["two"]
    assert len(sweeps.load(parent).trials) == 6
    both = sweeps.load(["one", "two"], uri=f"sqlite:///{store}/mlflow.db").trials
    assert list(both["sweep"]) == ["one"] * 6 + ["two"]


def test_a_failed_trial_that_was_run_again_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, "mlflow.db")
    repaired = FAILED.model_copy()
    assert repaired is not FAILED
    record("mended", [FAILED])
    assert list(sweeps.load("mended").trials["status"]) == ["failed"]
    record("mended", [repaired])
    assert len(local_store(tmp_path, "mended").children) == 2
    assert list(sweeps.load("mended").trials["status"]) == ["ok"]


def test_a_trial_that_was_rerun_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, "mlflow.db")
    record("again", TRIALS[:2])
    record("again", TRIALS[:2], again=True)
    assert len(local_store(tmp_path, "again").children) == 4
    assert list(sweeps.load("again").trials["seed"]) == [0, 1]


def test_trials_are_compared_by_the_sweeps_newest_objective(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path
) -> None:
    """Trials that are done are not run again for it, so their own config may have another one."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, "mlflow.db")
    trials = [make(seed=n, objective="test/loss" if n else None) for n in (0, 1)]

    def metrics(name: str) -> set[str]:
        (stored,) = load_sweeps([name], None, Path(tempfile.mkdtemp(dir=tmp_path)))
        return {outcome.trial.score_metric.key for outcome in stored.outcomes}

    record("before", trials)
    assert metrics("before") == {"test/accuracy", "test/loss"}
    for objective, key in (("validation/loss", "validation/loss"), ("", "test/accuracy")):
        record("after", trials, tags={"sweep.objective": objective})
        assert metrics("after") == {key}
    record("after", trials, tags={"sweep.objective": OF_EACH_TRIAL})
    assert metrics("after") == metrics("before")


@pytest.mark.parametrize(
    ("asked", "said"), [("none", "none of this name"), ("ab" * 16, "no such run")]
)
def test_what_is_not_there_is_said(
    asked: str, said: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store)
    with pytest.raises(Invalid, match=said):
        sweeps.load(asked)
    with pytest.raises(Invalid, match="no store there"):
        sweeps.load(asked, uri="sqlite:///nowhere.db")
    assert not Path("nowhere.db").exists()
