"""Trials that start from the model of an earlier run: it is fetched while a sweep is composed."""

from __future__ import annotations

import shutil
from contextlib import chdir
from pathlib import Path

import pytest

from masksweep import sweeps
from masksweep.strategies import Invalid
from masksweep.sweeps.cli.main import main
from masksweep.sweeps.components.initializers import network
from masksweep.sweeps.components.models.mlp import MLP
from masksweep.sweeps.composing.command_line import compose_plan
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking import resume, stored_runs
from tests.support.trials import trial as make

# composing sets Hydra's version base, which must not affect other tests
pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")

STARTS = Path(".masksweep/checkpoints/starts")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A folder with a store: the run of seed 0 has a model, and that of seed 1 was skipped."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder / "mlflow.db")
    network(MLP(hidden=(12,)), (64,), 10).build(0).save(folder / "net.keras")
    content = (folder / "net.keras").read_bytes()
    trials = [make(seed=seed) for seed in (0, 1)]
    with (
        chdir(folder),
        resume.open_sweep([PlannedTrial(t, []) for t in trials], "earlier", rerun=True) as opened,
    ):
        recorder = opened[1]
        recorder.start_sweep("note", [])
        recorder.sender.start()
        results = TrialResult("ok", artifacts={"model.keras": content}), TrialResult("skipped", "x")
        for trial, result in zip(trials, results, strict=True):
            recorder.start_trial(trial, trial.name)
            recorder.end_trial(trial, result)
        recorder.end_sweep("FINISHED", "note", {})
        assert recorder.sender.finish(60)
    return folder


@pytest.fixture
def runs(store: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Run ids by seed; the current folder is that of the store."""
    monkeypatch.chdir(store)
    trials = sweeps.load("earlier").trials
    return dict(zip(trials["seed"], trials["run_id"], strict=True))


def planned(*overrides: str) -> list[Trial]:
    return [p.trial for p in compose_plan(["data=digits", "model.hidden=[12]", *overrides])]


def test_the_model_of_a_run_is_the_file_of_the_trial(runs: dict[int, str]) -> None:
    by_run, by_file = (
        planned(f"start.{setting}", "seed=0,1") for setting in (f"run={runs[0]}", "path=net.keras")
    )
    assert [t.id for t in by_run] == [t.id for t in by_file]
    assert by_run[0].start.run == runs[0]
    path = Path(str(by_run[0].start.path))
    assert path == STARTS.absolute() / f"{runs[0]}.keras"
    assert path.read_bytes() == Path("net.keras").read_bytes()


def test_it_is_fetched_once_and_into_the_folder_of_the_checkpoints(
    runs: dict[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = f"start.run={runs[0]}", f"checkpoint.path={tmp_path}"
    assert str(planned(*arguments)[0].start.path).startswith(f"{tmp_path}/starts/")
    monkeypatch.setattr(stored_runs, "download", None)
    planned(*arguments)


def test_a_run_without_a_model_is_refused(
    runs: dict[int, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", f"start.run={runs[1]}"]) == 2
    message = f"start.run={runs[1]}: has no model.keras, which the run of a trial has when it ended"
    assert message in capsys.readouterr().err


def test_an_unknown_run_and_store_are_refused(runs: dict[int, str], tmp_path: Path) -> None:
    unknown = 32 * "a"
    with pytest.raises(Invalid, match="no such run in sqlite"):
        planned(f"start.run={unknown}")
    with pytest.raises(Invalid, match="no store there") as caught:
        planned(f"start.run={unknown}", f"tracking.uri=sqlite:///{tmp_path}/none.db")
    assert caught.value.key == "tracking.uri"


def test_the_plan_says_what_trials_start_from(
    runs: dict[int, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", f"start.run={runs[0]}", "start.new=[output/*]", "seed=0,1"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "start." in line]
    path = STARTS.absolute() / f"{runs[0]}.keras"
    assert line == (
        f"start.run={runs[0]} start.path={path}: its weights are the initial ones, "
        "without the new outputs of output/*"
    )
