"""Tests of `masksweep reproduce`: a result is computed again from its config file."""

from __future__ import annotations

import shutil
import uuid
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Run

from masksweep.sweeps.cli.main import main
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.tracking import resume
from masksweep.sweeps.training import pack
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.state import PackMember
from tests.support.sweep_process import local_store
from tests.support.trials import trial as make

STEPS = {"epochs": 2, "batch_size": 100}


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, empty_store: Path
) -> tuple[Path, list[Run], Run]:
    """The folder of a store, the runs of a sweep's trials, and the sweep's parent run."""
    folder = tmp_path_factory.mktemp("sweep")
    shutil.copy(empty_store, folder / "mlflow.db")
    rng = np.random.default_rng(0)
    shapes = {"hidden_1/kernel": (64, 12), "hidden_2/kernel": (12, 8)}
    np.savez(folder / "mine.npz", **{n: rng.random(s) < 0.5 for n, s in shapes.items()})
    # without XLA, which takes longer than these trials; a pack needs it
    base = {"train": {**STEPS, "jit": False}, "speed": {"rounds": 0}}
    packed: dict[str, Any] = {**base, "train": STEPS, "launch": {"pack": 4}}
    trials = [
        make(strategy="dense", **base),
        make(strategy="gradient_mask", **packed, seed=1),
        make(strategy="gradient_mask", **packed, seed=2),
        make(**base, pattern={"name": "file", "path": str(folder / "mine.npz")}, held="init"),
        make(**base, strategy="var_list"),  # this strategy refuses masks of single weights
    ]
    planned = [PlannedTrial(t, []) for t in trials]
    with (
        chdir(folder),
        resume.open_sweep(planned, "small", rerun=False) as (_, recorder, _),
    ):
        recorder.start_sweep("note", [])
        recorder.sender.start()
        checkpoints = f"memory://{uuid.uuid4().hex}"
        for group in ([0], [1, 2], [3], [4]):  # the trials of a pack run side by side
            members = []
            for trial in (trials[i] for i in group):
                recorder.start_trial(trial, trial.name)

                def log(report: pack.Report, trial: Trial = trial) -> None:
                    recorder.log(trial, report.epoch, report.metrics)

                members.append(PackMember(trial, log, Checkpoints(checkpoints, trial.id, 60)))
            for member, result in zip(members, pack.run(members), strict=True):
                assert not isinstance(result, Exception)
                recorder.end_trial(member.trial, result)
        recorder.end_sweep("FINISHED", "note", {})
        assert recorder.sender.finish(120)
    (folder / "mine.npz").unlink()
    store = local_store(folder, "small")
    return folder, store.children, store.parent


def config_of(run: Run) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://")) / "config.yaml"


def test_all_trials_of_a_sweep_come_out_the_same(
    runs: tuple[Path, list[Run], Run],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A trial alone, trials of a pack on their own, masks from a file, and a skipped trial."""
    folder, children, parent = runs
    monkeypatch.chdir(folder)
    assert main(["reproduce", "--sweep", parent.info.run_id]) == 0
    assert capsys.readouterr().out == "5 identical\n"
    again = local_store(folder, f"reproduces {parent.info.run_id}")
    assert {r.data.tags["reproduces"] for r in again.children} == {r.info.run_id for r in children}
    digests = [
        {r.data.tags["trial.id"]: r.data.tags.get("trial.weights_sha256") for r in trial_runs}
        for trial_runs in (children, again.children)
    ]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 5


def test_a_doctored_config_is_different(
    runs: tuple[Path, list[Run], Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    empty_store: Path,
) -> None:
    """The difference is also found on another machine, from the file alone."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, "mlflow.db")
    children = runs[1]
    (original,) = [r for r in children if r.data.params["held"] == "init"]
    shutil.copytree(config_of(original).parent, tmp_path / "copied")
    path = tmp_path / "copied" / "config.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.01,", "learning_rate: 0.0101,"))
    assert main(["reproduce", str(path)]) == 1
    out = capsys.readouterr().out
    assert "weights: another digest\n" in out
    assert "curves: first differ at epoch 1 (train/" in out
    assert "config: changed since" in out
    assert out.endswith("verdict: different\n")
    name = f"reproduces {original.info.run_name}, {original.data.tags['trial.id'][:8]}"
    (again,) = local_store(tmp_path, name).children
    assert again.data.tags["reproduces.trial"] == original.data.tags["trial.id"]
    assert not list((tmp_path / ".masksweep").rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required"),
        (["nothing.yaml"], "neither a file nor the id of a run"),
        (["ab" * 16], "no such run|no store there"),
        (["--sweep", "ab" * 16], "no such run|no store there"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(
    arguments: list[str],
    said: str,
    runs: tuple[Path, list[Run], Run],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(runs[0])
    assert main(["reproduce", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("masksweep: ")
    assert any(words in err for words in said.split("|"))


def test_a_store_that_cannot_be_opened_is_said_before_anything_runs(
    runs: tuple[Path, list[Run], Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    config = config_of(runs[1][0])
    assert main(["reproduce", str(config), "--uri", "nothing://x"]) == 2
    err = capsys.readouterr().err
    assert "cannot be opened" in err.splitlines()[-1]
    assert "Running" not in err


def test_a_sweeps_own_run_is_no_trial(
    runs: tuple[Path, list[Run], Run],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _, parent = runs
    monkeypatch.chdir(folder)
    assert main(["reproduce", parent.info.run_id]) == 2
    assert "has no config.yaml" in capsys.readouterr().err
