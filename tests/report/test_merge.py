"""Tests of reports on several sweeps: their trials, variants, questions and files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from masksweep.sweeps.cli.main import main
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.report import html_page
from masksweep.sweeps.report.merge import combine
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking import resume, stored_sweep
from masksweep.sweeps.tracking.stored_sweep import StoredSweep
from tests.support.sweep_process import local_store
from tests.support.trials import trial as make

SGD = {"name": "sgd", "learning_rate": 0.1}
Scored = tuple[Trial, float | None]


def record(name: str, scored: Sequence[Scored], environment: str) -> None:
    """Records a sweep in the store of the current folder, without training.

    A trial whose score is None has failed.
    """
    tags = {
        "sweep.question": f"Does {name} hold?",
        "sweep.command": f"masksweep run sweep.name={name}",
    }
    planned = [PlannedTrial(trial, []) for trial, _ in scored]
    with resume.open_sweep(planned, name, rerun=True) as (_, recorder, _):
        recorder.start_sweep("", [], tags=tags)
        recorder.sender.start()
        for trial, score in scored:
            recorder.start_trial(trial, trial.name)
            if score is None:
                recorder.fail_trial(trial, "lost", {})
                continue
            metrics = {"test/accuracy": score, "integrity/ok": 1.0}
            artifacts = {"environment.txt": environment.encode()}
            recorder.end_trial(trial, TrialResult("ok", metrics=metrics, artifacts=artifacts))
        recorder.end_sweep("FINISHED", "", {})
        assert recorder.sender.finish(120)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A folder with the sweeps `one` and `two`.

    Two trials of `one` were run again in `two`: one has another result, the other failed.
    """
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder / "mlflow.db")
    mask_arrays = {"hidden_1/kernel": np.eye(64, 12) > 0, "hidden_2/kernel": np.eye(12, 8) > 0}
    np.savez(folder / "masks.npz", **mask_arrays)
    masks = {"name": "file", "path": str(folder / "masks.npz")}
    of_file = [
        (make(strategy=s, seed=n, pattern=masks), 0.5 + offset + n / 8)
        for s, offset in (("weight_mask", 0.0), ("projection", 0.25))
        for n in (0, 1)
    ]
    with chdir(folder):
        record("one", [(make(seed=n), 0.125 * n) for n in range(3)], "gpus: []\n")
        repeated: list[Scored] = [(make(seed=1), 0.75), (make(seed=2), None)]
        record("two", [*repeated, (make(optimizer=SGD), 0.875), *of_file], "gpus: [one]\n")
    return folder


def scores(outcomes: Sequence[Outcome]) -> dict[str, float]:
    return {o.name: o.result.metrics["test/accuracy"] for o in outcomes}


@pytest.mark.parametrize("asked", [["one", "two"], ["two", "one"], ["one", "two", "one"]], ids=str)
def test_a_trial_of_both_is_told_once_the_newest_that_has_finished(
    asked: list[str], store: Path, tmp_path: Path
) -> None:
    combined = combine(stored_sweep.load_sweeps(asked, f"sqlite:///{store}/mlflow.db", tmp_path))
    assert {o.status for o in combined.outcomes} == {"ok"}
    assert len(combined.outcomes) == 8
    assert (
        scores(combined.outcomes).items()
        >= {
            "weight_mask, random 0.5, seed 0, adam": 0.0,
            "weight_mask, random 0.5, seed 1, adam": 0.75,
            "weight_mask, random 0.5, seed 2, adam": 0.25,
            "weight_mask, random 0.5, seed 0, sgd": 0.875,
        }.items()
    )
    elsewhere = "1 of its trials are in another of these too, and told there"
    assert sorted(combined.left_out) == [f"one: {elsewhere}", f"two: {elsewhere}"]


def test_one_by_itself_stays_as_it_is(store: Path, tmp_path: Path) -> None:
    (single,) = stored_sweep.load_sweeps("one", f"sqlite:///{store}/mlflow.db", tmp_path)
    combined = combine([single])
    assert combined == single
    assert list(combined.single_sweeps) == [combined]
    assert list(scores(combined.outcomes).values()) == [0.0, 0.125, 0.25]
    assert combined.left_out == []


@pytest.fixture(scope="module")
def made(store: Path) -> Path:
    """The folder with a report of both sweeps. The masks of some trials come from a file."""
    with chdir(store):
        (store / "masks.npz").rename(store / "moved.npz")  # the runs have a copy of the file
        assert main(["report", "one", "two", "--baseline", "weight_mask"]) == 0
    return store / "report"


def test_the_page_tells_what_each_of_them_says(made: Path) -> None:
    text = (made / "report.html").read_text()
    assert "<h1>one and two</h1>" in text
    assert "8 trials: 8 ended well." in text
    for name, environment in (("one", "gpus: []"), ("two", "gpus: [one]")):
        run = local_store(made.parent, name).parent.info.run_id
        for expected in (
            f"{name}: Does {name} hold?",
            environment,
            f"masksweep run sweep.name={name}\nmasksweep reproduce --sweep {run}",
            f"{name}: 1 of its trials",
        ):
            assert expected in text


def test_a_baseline_is_found_by_the_content_of_its_masks(made: Path) -> None:
    text = (made / "report.html").read_text()
    assert "<h2>Compared with weight_mask</h2>" in text
    assert "test accuracy minus weight_mask" in text
    assert "<td>projection</td><td>file</td><td>+25.0 [+25.0, +25.0]</td>" in text


def test_the_tables_have_the_trials_that_the_page_has(made: Path) -> None:
    for trials in (
        pd.read_csv(made / "trials.csv"),
        pd.read_parquet(made / "trials.parquet"),
    ):
        assert list(trials["sweep"]) == ["one"] * 2 + ["two"] * 6
        assert list(trials["test/accuracy"])[:3] == [0.0, 0.25, 0.75]
    curves = pd.read_parquet(made / "curves.parquet")
    assert set(curves["run_id"]) <= set(trials["run_id"])
    assert len(curves) == len(pd.read_csv(made / "curves.csv"))


def test_each_of_them_has_the_files(made: Path) -> None:
    names = {p.name for p in made.iterdir()}
    assert names >= {"report.html", "trials.parquet", "curves.parquet"}
    for name in ("one", "two"):
        sweep_store = local_store(made.parent, name)
        logged = sweep_store.client.list_artifacts(sweep_store.parent.info.run_id, "report")
        assert {Path(f.path).name for f in logged} == names


def test_a_sweep_needs_no_store_to_have_a_page() -> None:
    trial = make()
    outcome = Outcome(trial, "", "ok", TrialResult("ok", metrics={"integrity/ok": 1.0}))
    texts = "Does it hold?", "masksweep run"
    text = html_page.page(
        StoredSweep("mine", "my id", *texts, [outcome], {"a: 1\n": [trial.name]}, []), {}
    )
    for expected in (
        "<h1>mine</h1>",
        *texts,
        "--sweep &#39;my id&#39;",
        "a: 1",
        "holds",
    ):
        assert expected in text
