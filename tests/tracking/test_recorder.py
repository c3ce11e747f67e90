"""Tests of the recorder: records go to disk first, stay in order, and are applied exactly once."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from masksweep.strategies import Invalid
from masksweep.sweeps.cli.sync import sync
from masksweep.sweeps.config.plan import PlannedTrial, count_by_state
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking import entities, resume, stored_runs
from masksweep.sweeps.tracking.client import new_client
from masksweep.sweeps.tracking.frames import load
from masksweep.sweeps.tracking.recorder import Recorder
from masksweep.sweeps.tracking.sender import Sender
from masksweep.sweeps.tracking.spool import Record, Spool
from masksweep.sweeps.tracking.store import StoreRefused, StoreUnavailable, translate_errors
from masksweep.sweeps.tracking.writer import Tracker
from tests.support.trials import trial

NAME = 'it\'s a "sweep"'
TRIALS = [trial(seed=seed) for seed in range(3)]
PLANNED = [PlannedTrial(t, [f"seed={t.seed}"]) for t in TRIALS]
RESULT = TrialResult(
    "ok",
    metrics={"train/loss": 0.25, "test/accuracy": 0.5, "integrity/ok": 1.0},
    tags={"trial.weights_sha256": "0" * 64},
    artifacts={"masks.npz": b"masks"},
    data={"name": "digits", "sha256": "1" * 64, "features": [3, 64], "targets": [3]},
    epochs=3,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, "mlflow.db")
    return tmp_path


@contextmanager
def recorder(rerun: bool = False) -> Iterator[tuple[list[PlannedTrial], Recorder]]:
    with resume.open_sweep(PLANNED, NAME, rerun) as (planned, sweep_recorder, away):
        assert not away
        yield planned, sweep_recorder


def record(sweep_recorder: Recorder, *trials: Trial, again: bool = False) -> None:
    for t in trials:
        sweep_recorder.start_trial(t, t.name, again)
        for epoch in (1, 2):
            sweep_recorder.log(t, epoch, {"train/loss": 1.0 / epoch})
        sweep_recorder.end_trial(t, RESULT)


def sweep(*trials: Trial, status: str = "FINISHED") -> None:
    """Records one sweep, from its start to its end."""
    with recorder() as (planned, sweep_recorder):
        sweep_recorder.start_sweep("note", [p.describe() for p in planned])
        sweep_recorder.sender.start()
        record(sweep_recorder, *trials)
        sweep_recorder.end_sweep(status, "note", {"table.txt": b"table"})
        assert sweep_recorder.sender.finish(10)


def client() -> MlflowClient:
    mlflow_client: MlflowClient = new_client(f"sqlite:///{Path('mlflow.db').absolute()}")
    return mlflow_client


def runs(query: str = "") -> list[Run]:
    experiment = client().get_experiment_by_name("masksweep")
    return list(client().search_runs([experiment.experiment_id], query)) if experiment else []


def children() -> list[Run]:
    return [r for r in runs() if "mlflow.parentRunId" in r.data.tags]


def test_a_sweep_is_a_parent_with_a_child_for_each_trial() -> None:
    sweep(*TRIALS)
    (parent,) = [r for r in runs() if "mlflow.parentRunId" not in r.data.tags]
    assert parent.info.run_name == NAME
    assert len(children()) == 3
    for run in children():
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        points = client().get_metric_history(run.info.run_id, "train/loss")
        assert [(p.step, p.value) for p in points] == [(1, 1.0), (2, 0.5), (3, 0.25)]
        assert {f.path for f in client().list_artifacts(run.info.run_id)} == {
            "config.yaml",
            "masks.npz",
        }
    assert not Path(".masksweep").exists()


def test_what_is_done_is_seen_and_the_parent_is_opened_again() -> None:
    Path("mlflow.db").unlink()
    assert count_by_state(resume.find_done(PLANNED, NAME)[0]) == "3 trials: 3 to run"
    assert not list(Path().iterdir()), "looking writes nothing"
    sweep(*TRIALS[:2], status="FAILED")
    assert count_by_state(resume.find_done(PLANNED, NAME)[0]) == "3 trials: 2 done, 1 to run"
    assert count_by_state(resume.find_done(PLANNED, "another")[0]) == "3 trials: 3 to run"
    with recorder() as (planned, sweep_recorder):
        assert [p.state for p in planned] == ["done", "done", "to run"]
        assert planned[0].previous_result is not None
        assert planned[0].previous_result.result.metrics == RESULT.metrics
        sweep_recorder.start_sweep("note", [])
        sweep_recorder.sender.start()
        record(sweep_recorder, TRIALS[2])
        sweep_recorder.end_sweep("FINISHED", "note", {"table.txt": b"table"})
        assert sweep_recorder.sender.finish(10)
    assert len(runs()) == 4
    assert {r.info.status for r in runs()} == {"FINISHED"}


def test_what_a_killed_driver_had_on_disk_is_sent_and_its_open_runs_are_closed() -> None:
    Path("mlflow.db").unlink()
    with recorder() as (_, sweep_recorder):
        sweep_recorder.start_sweep("note", [])
        record(sweep_recorder, TRIALS[0])
        sweep_recorder.start_trial(TRIALS[1], "left open")
        # the process ends here: nothing was sent
    assert not Path("mlflow.db").exists()
    assert count_by_state(resume.find_done(PLANNED, NAME)[0]) == "3 trials: 1 done, 2 to run"
    sweep(*TRIALS[1:])
    by_status: dict[str, list[str]] = {}
    for run in children():
        by_status.setdefault(run.info.status, []).append(run.data.tags["trial.id"])
    assert sorted(by_status["FINISHED"]) == sorted(t.id for t in TRIALS)
    assert by_status["KILLED"] == [TRIALS[1].id]
    assert by_status.keys() == {"FINISHED", "KILLED"}


def records() -> tuple[Spool, list[Any]]:
    """Returns the spool and the records of a whole sweep, which were not sent."""
    with recorder() as (_, sweep_recorder):
        sweep_recorder.start_sweep("note", [])
        record(sweep_recorder, *TRIALS[:2])
        sweep_recorder.start_trial(TRIALS[2], TRIALS[2].name)
        sweep_recorder.fail_trial(TRIALS[2], "ValueError: no", {"traceback.txt": b"no"})
        sweep_recorder.end_sweep("FAILED", "note", {"table.txt": b"table"})
    spool = Spool(resume.address(TRIALS[0].tracking, NAME).path)
    return spool, spool.oldest(100)


@pytest.mark.parametrize("sent", range(1, 13))
def test_a_crash_after_any_record_doubles_nothing(sent: int) -> None:
    """The store has the first records, but the spool does not know it, so all are sent again."""
    spool, all_records = records()
    assert len(all_records) == 12
    Tracker(TRIALS[0].tracking, NAME).apply(all_records[:sent], spool.files)
    Tracker(TRIALS[0].tracking, NAME).apply(all_records, spool.files)
    spool.close()
    assert sorted(r.data.tags["trial.id"] for r in children()) == sorted(t.id for t in TRIALS)
    assert len(runs()) == 4
    for run in children():
        points = client().get_metric_history(run.info.run_id, "train/loss")
        failed = run.data.tags["trial.id"] == TRIALS[2].id
        assert run.info.status == ("FAILED" if failed else "FINISHED")
        assert [p.step for p in points] == ([] if failed else [1, 2, 3])
        assert len(run.inputs.dataset_inputs) == (0 if failed else 1)


class GoesAway:
    """MLflow's client that fails at its n-th call.

    With `made`, the n-th call is executed but its answer is lost; else the call is not executed.
    """

    def __init__(self, client: MlflowClient, calls: int, made: bool) -> None:
        self._client, self._left, self._made = client, calls, made

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            answer = None
            if self._left or self._made:
                answer = getattr(self._client, name)(*args, **kwargs)
            if not self._left:
                raise ConnectionError("no answer")
            return answer

        return call


@pytest.mark.slow
@pytest.mark.parametrize("made", [False, True], ids=["not made", "not answered"])
@pytest.mark.parametrize("who", ["the same process", "another process"])
def test_a_store_that_goes_away_at_any_call_gets_everything_once(made: bool, who: str) -> None:
    sweep(TRIALS[0])
    before = Path("mlflow.db").read_bytes()
    with recorder(rerun=True) as (_, sweep_recorder):
        sweep_recorder.start_sweep("note", [])
        record(sweep_recorder, TRIALS[0], again=True)
        sweep_recorder.start_trial(TRIALS[1], TRIALS[1].name)
        sweep_recorder.log(TRIALS[1], 1, {"train/loss": math.nan})
        sweep_recorder.fail_trial(TRIALS[1], "diverged: nan", {"traceback.txt": b"no"})
        sweep_recorder.end_sweep("FAILED", "note", {"table.txt": b"table"})
    spool = Spool(resume.address(TRIALS[0].tracking, NAME).path)
    batch = spool.oldest(100)
    for calls in count(1):
        Path("mlflow.db").write_bytes(before)
        tracker = Tracker(TRIALS[0].tracking, NAME)
        real_client, tracker._client = tracker._client, GoesAway(tracker._client, calls, made)
        try:
            tracker.apply(batch, spool.files)
            break
        except StoreUnavailable:
            tracker._client = real_client
        # after a refusal, the records of a batch are sent one by one
        next_tracker = tracker if who == "the same process" else Tracker(TRIALS[0].tracking, NAME)
        for spool_record in batch:
            next_tracker.apply([spool_record], spool.files)
        assert len(runs()) == 4, calls
        old, new, failed = sorted(children(), key=lambda r: r.info.start_time)
        assert old.data.tags["trial.superseded"] == new.info.run_id
        assert "trial.superseded" not in new.data.tags
        assert [r.info.status for r in (old, new, failed)] == ["FINISHED", "FINISHED", "FAILED"]
        for run, steps in ((new, [1, 2, 3]), (failed, [1])):
            points = client().get_metric_history(run.info.run_id, "train/loss")
            assert [p.step for p in points] == steps, calls
    spool.close()
    assert calls > 20


def watched(sweep_recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Returns a list that gets the kinds of the records of each batch that is sent from now on."""
    batches: list[list[str]] = []
    send = sweep_recorder.sender.send

    def sending(batch: Sequence[Record]) -> None:
        batches.append([r.kind for r in batch])
        send(batch)

    monkeypatch.setattr(sweep_recorder.sender, "send", sending)
    return batches


def test_points_of_curves_are_sent_together_and_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder() as (planned, sweep_recorder):
        sweep_recorder.start_sweep("note", [p.describe() for p in planned])
        for t in TRIALS:
            sweep_recorder.start_trial(t, t.name)
        sweep_recorder.sender.send_left()
        batches = watched(sweep_recorder, monkeypatch)
        sweep_recorder.sender.start()
        for epoch in (1, 2):
            for t in TRIALS:
                sweep_recorder.log(t, epoch, {"train/loss": 1.0 / epoch})
            time.sleep(0.5)
        start = time.monotonic()
        while sweep_recorder.sender.waiting:  # no further record makes it send
            assert time.monotonic() - start < 30
            time.sleep(0.1)
        assert batches == [["metrics"] * 6]


def test_few_records_that_take_long_are_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("masksweep.sweeps.tracking.sender.BATCH_LARGE_RECORDS", 2)
    with recorder() as (planned, sweep_recorder):
        sweep_recorder.start_sweep("note", [p.describe() for p in planned])
        batches = watched(sweep_recorder, monkeypatch)
        record(sweep_recorder, *TRIALS)
        sweep_recorder.sender.send_left()
    assert [sum(kind != "metrics" for kind in batch) for batch in batches] == [2, 2, 2, 1]
    assert sum(map(len, batches)) == 13


def test_a_sweep_that_is_run_again_says_how_now_and_is_shown() -> None:
    for command in ("one", "two"):
        with recorder() as (_, sweep_recorder):
            sweep_recorder.start_sweep("note", [], ["test/accuracy"], {"sweep.command": command})
            sweep_recorder.sender.start()
            sweep_recorder.end_sweep("FINISHED", "note", {}, {"trials/ok": 3.0})
            assert sweep_recorder.sender.finish(10)
    (run,) = client().search_runs(["1"], "tags.`sweep.id` LIKE '%'")
    assert run.data.tags["sweep.command"] == "two"
    assert run.data.metrics == {"trials/ok": 3.0}
    assert run.data.tags["mlflow.note.content"].startswith("All trials: [table](#/experiments/1/")
    key = f"mlflow.sharedViewState.masksweep-{run.data.tags['sweep.id']}"
    state = json.loads(client().get_experiment("1").tags[key])
    assert state["searchFilter"] == f"tags.mlflow.parentRunId = '{run.info.run_id}'"


def test_a_store_that_takes_no_view_takes_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MlflowException("too long", INVALID_PARAMETER_VALUE)

    with recorder() as (_, sweep_recorder):
        sweep_recorder.start_sweep("note", [{"id": "x"}], ["test/accuracy"])
        monkeypatch.setattr(MlflowClient, "set_experiment_tag", refuse)
        sweep_recorder.sender.start()
        sweep_recorder.end_sweep("FINISHED", "note", {})
        assert sweep_recorder.sender.finish(10)
    (run,) = client().search_runs(["1"], "tags.`sweep.id` LIKE '%'")
    assert run.data.tags["mlflow.note.content"] == "note"
    assert [f.path for f in client().list_artifacts(run.info.run_id)] == ["plan.json"]


def test_a_retry_does_not_double_a_curve() -> None:
    with recorder() as (_, sweep_recorder):
        sweep_recorder.start_sweep("note", [])
        sweep_recorder.sender.start()
        sweep_recorder.start_trial(TRIALS[0], "retried")
        for epoch in (1, 2, 1, 2, 3):
            sweep_recorder.log(TRIALS[0], epoch, {"train/loss": 1.0 / epoch})
        sweep_recorder.end_trial(TRIALS[0], RESULT, retries=1)
        assert sweep_recorder.sender.finish(10)
    (run,) = children()
    points = client().get_metric_history(run.info.run_id, "train/loss")
    assert [p.step for p in points] == [1, 2, 3]
    assert run.data.tags["trial.retries"] == "1"


def test_a_trial_that_the_store_turns_out_to_have_is_not_recorded_again() -> None:
    """The store was away when the sweep asked it for finished trials."""
    sweep(TRIALS[0])
    with Spool.open_exclusively(resume.address(TRIALS[0].tracking, NAME)) as spool:
        sweep_recorder = Recorder(spool, Sender(spool, TRIALS[0].tracking, NAME))
        sweep_recorder.start_sweep("note", [])
        record(sweep_recorder, *TRIALS[:2])
        sweep_recorder.end_sweep("FINISHED", "note", {"table.txt": b"table"})
        sweep_recorder.sender.start()
        assert sweep_recorder.sender.finish(10)
    assert sorted(r.data.tags["trial.id"] for r in children()) == sorted(t.id for t in TRIALS[:2])


def test_a_trial_that_the_store_has_leaves_no_record_behind_in_another_process() -> None:
    """As above, but the driver is killed after the trial's start was sent, while the rest waits."""
    sweep(TRIALS[0])
    with Spool.open_exclusively(resume.address(TRIALS[0].tracking, NAME)) as spool:
        sweep_recorder = Recorder(spool, Sender(spool, TRIALS[0].tracking, NAME))
        sweep_recorder.start_sweep("note", [])
        record(sweep_recorder, TRIALS[0])
        sweep_recorder.start_trial(TRIALS[1], TRIALS[1].name)
        sweep_recorder.log(TRIALS[1], 1, {"train/loss": math.nan})
        sweep_recorder.sender.send(spool.oldest(3))
    assert count_by_state(resume.find_done(PLANNED, NAME)[0]) == "3 trials: 1 done, 2 to run"
    assert sync([]) == 0
    assert len(children()) == 2
    assert not Path(".masksweep").exists()


def test_only_what_waits_for_the_given_store_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    for store in ("one", "two"):
        tracking = Tracking(uri=f"sqlite:///{store}.db")
        with Spool.open_exclusively(resume.address(tracking, NAME)) as spool:
            Recorder(spool, Sender(spool, tracking, NAME)).start_sweep("note", [])
    assert sync(["--uri", "sqlite:///one.db"]) == 0
    assert Path("one.db").exists()
    assert not Path("two.db").exists()
    assert len(Spool.addresses()) == 1
    assert sync([]) == 0
    assert Path("two.db").exists()


@pytest.mark.parametrize(
    ("code", "away"), [(413, False), (404, False), (403, True), (429, True), (503, True)]
)
def test_an_upload_that_is_answered_with(code: int, away: bool) -> None:
    answer = requests.Response()
    answer.status_code = code
    with pytest.raises(StoreUnavailable if away else StoreRefused), translate_errors():
        answer.raise_for_status()


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (KeyError("run"), False),
        (TypeError("not a string"), False),
        (ConnectionResetError("by the server"), True),
        (requests.exceptions.JSONDecodeError("a proxy's page", "<html>", 0), True),
        (json.JSONDecodeError("a proxy's page", "<html>", 0), True),
    ],
)
def test_a_bug_is_no_store_that_is_away(error: Exception, away: bool) -> None:
    with pytest.raises(StoreUnavailable if away else StoreRefused) as caught, translate_errors():
        raise error
    assert away or type(error).__name__ in str(caught.value)


def test_a_long_name_fits_into_every_database() -> None:
    with recorder() as (_, sweep_recorder):
        sweep_recorder.start_sweep("note", [])
        sweep_recorder.sender.start()
        sweep_recorder.start_trial(TRIALS[0], "name " * 100)
        sweep_recorder.end_trial(TRIALS[0], RESULT)
        assert sweep_recorder.sender.finish(10)
    (run,) = children()
    assert len(run.info.run_name) == 250


def test_rerun_repeats_and_the_newest_counts() -> None:
    sweep(*TRIALS)
    with recorder(rerun=True) as (planned, sweep_recorder):
        assert count_by_state(planned) == "3 trials: 3 to run"
        sweep_recorder.start_sweep("note", [])
        sweep_recorder.sender.start()
        record(sweep_recorder, TRIALS[0], again=True)
        sweep_recorder.end_sweep("FINISHED", "note", {"table.txt": b"table"})
        assert sweep_recorder.sender.finish(10)
    seed_0_runs = [r for r in children() if r.data.tags["trial.id"] == TRIALS[0].id]
    assert len(seed_0_runs) == 2
    (old,) = [r for r in seed_0_runs if "trial.superseded" in r.data.tags]
    (new,) = [r for r in seed_0_runs if r is not old]
    assert old.data.tags["trial.superseded"] == new.info.run_id
    assert count_by_state(resume.find_done(PLANNED, NAME)[0]) == "3 trials: 3 done"


def test_an_infinite_metric_comes_back() -> None:
    sweep(*TRIALS)
    (run, *_) = children()
    for name, value in {"test/mse": math.inf, "a": -math.inf, "b": math.nan, "c": 1e300}.items():
        client().log_metric(run.info.run_id, name, value)
    stored = entities.stored_metrics(client().get_run(run.info.run_id))
    assert (stored["test/mse"], stored["a"], stored["c"]) == (math.inf, -math.inf, 1e300)
    assert math.isnan(stored["b"])
    assert math.inf in set(load(NAME).trials["test/mse"])


def test_a_rerun_that_does_not_finish_hides_no_result() -> None:
    sweep(*TRIALS)
    finished = {run.info.run_id for run in children()}
    with recorder(rerun=True) as (_, sweep_recorder):
        sweep_recorder.start_sweep("note", [])
        sweep_recorder.sender.start()
        record(sweep_recorder, TRIALS[0], again=True)
        sweep_recorder.start_trial(TRIALS[1], TRIALS[1].name, True)
        sweep_recorder.kill_trials()  # as Ctrl-C
        sweep_recorder.end_sweep("KILLED", "note", {})
        assert sweep_recorder.sender.finish(10)
    (parent,) = stored_runs.parent_runs(client(), NAME, None)
    shown = {run.info.run_id for run in stored_runs.trial_runs(client(), parent)}
    assert len(shown) == 3
    assert len(shown & finished) == 2  # one has a new result, and takes the place of the old one
    # what the rerun had not done is still to be done
    assert count_by_state(resume.find_done(PLANNED, NAME)[0]) == "3 trials: 2 done, 1 to run"


def test_a_finished_run_of_other_code_is_kept_with_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("masksweep.sweeps.tracking.recorder.code_version", lambda: "0.0.9+abc")
    sweep(*TRIALS[:2])
    planned, _ = resume.find_done(PLANNED, NAME)
    assert count_by_state(planned) == "3 trials: 2 done, 1 to run"
    warning = "2 of them ran with another version of the code (0.0.9+abc); --rerun repeats them"
    assert resume.other_code_warning(planned) == warning


def test_what_the_store_refuses_is_set_aside_and_the_rest_goes_on() -> None:
    with recorder() as (_, sweep_recorder):
        sweep_recorder.start_sweep("note", [])
        sweep_recorder.sender.start()
        sweep_recorder.start_trial(TRIALS[0], TRIALS[0].name)
        sweep_recorder.log(TRIALS[0], 1, {"not a name?": 1.0})
        sweep_recorder.end_trial(TRIALS[0], RESULT)
        sweep_recorder.end_sweep("FINISHED", "note", {"table.txt": b"table"})
        assert not sweep_recorder.sender.finish(10)
        assert sweep_recorder.sender.waiting == 1
        assert "not a name?" in sweep_recorder.sender.refused[0]
    (run,) = children()
    assert run.info.status == "FINISHED"


def test_one_process_at_a_time_runs_a_sweep() -> None:
    code = "import sys, tests.tracking.test_recorder as t; t.hold()"
    with recorder():
        process = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
        )
    assert process.stdout == "", process.stderr
    assert "is being run by another process" in process.stderr
    with recorder():
        pass


def hold() -> None:
    with recorder():
        print("both hold it")


@pytest.mark.slow  # MLflow waits 20 s for the lock
def test_a_locked_database_is_waited_for() -> None:
    sweep(TRIALS[0])
    spool, all_records = records()
    with sqlite3.connect("mlflow.db") as connection:
        tracker = Tracker(TRIALS[0].tracking, NAME)
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable):
            tracker.apply(all_records, spool.files)
        connection.rollback()
    connection.close()
    tracker.apply(all_records, spool.files)
    spool.close()
    assert len(children()) == 3


def test_a_deleted_experiment_is_bad_input() -> None:
    sweep(TRIALS[0])
    client().delete_experiment(client().get_experiment_by_name("masksweep").experiment_id)
    with pytest.raises(Invalid, match=r"tracking\.experiment"), recorder():
        pass


def test_records_of_a_run_that_is_gone_are_refused_not_dropped() -> None:
    spool, all_records = records()
    tracker = Tracker(TRIALS[0].tracking, NAME)
    tracker.apply(all_records[:1], spool.files)
    with pytest.raises(StoreRefused):
        tracker.apply(all_records[2:3], spool.files)
    spool.close()


def lose(how: str) -> None:
    """Damages the store, as a user could while a sweep writes to it."""
    match how:
        case "deleted":
            Path("mlflow.db").unlink()
        case "emptied":
            Path("mlflow.db").write_bytes(b"")
        case "parent deleted":
            (parent,) = [r for r in runs() if "mlflow.parentRunId" not in r.data.tags]
            client().delete_run(parent.info.run_id)
        case "trial deleted":
            (run, *_) = [r for r in children() if r.data.tags["trial.id"] == TRIALS[0].id]
            client().delete_run(run.info.run_id)


def stored(sweep_recorder: Recorder) -> None:
    """Waits until the store has all records."""
    deadline = time.monotonic() + 60
    while sweep_recorder.sender.waiting:
        assert time.monotonic() < deadline
        time.sleep(0.05)


class TestLoss:
    """If the store loses records, they are sent again, or their trials count as not done."""

    @pytest.mark.parametrize("how", ["deleted", "emptied", "parent deleted", "trial deleted"])
    def test_a_trial_on_its_way_is_made_anew(self, how: str) -> None:
        with recorder() as (_, sweep_recorder):
            sweep_recorder.sender.start()
            sweep_recorder.start_sweep("note", [])
            sweep_recorder.start_trial(TRIALS[0], "on its way")
            sweep_recorder.log(TRIALS[0], 1, {"train/loss": 1.0})
            stored(sweep_recorder)
            lose(how)
            sweep_recorder.start_trial(TRIALS[1], "begins later")
            sweep_recorder.log(TRIALS[0], 2, {"train/loss": 0.5})
            for t in TRIALS[:2]:
                sweep_recorder.end_trial(t, RESULT)
            sweep_recorder.end_sweep("FINISHED", "note", {})
            assert sweep_recorder.sender.finish(60), sweep_recorder.sender.trouble
            assert sweep_recorder.sender.find_lost(t.id for t in TRIALS[:2]) == []
        assert count_by_state(resume.find_done(PLANNED, NAME)[0]) == "3 trials: 2 done, 1 to run"
        (parent,) = [r for r in runs() if "mlflow.parentRunId" not in r.data.tags]
        trial_runs = [
            r for r in runs() if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id
        ]
        run_by_name = {r.info.run_name: r for r in trial_runs}
        assert run_by_name.keys() == {"on its way", "begins later"}
        points = client().get_metric_history(run_by_name["on its way"].info.run_id, "train/loss")
        assert [(p.step, p.value) for p in points] == [(1, 1.0), (2, 0.5), (3, 0.25)]
        assert {r.info.status for r in (parent, *trial_runs)} == {"FINISHED"}
        assert len(trial_runs) == 2
        assert "RUNNING" not in {r.info.status for r in runs()}
        assert not Path(".masksweep").exists()

    @pytest.mark.parametrize("how", ["deleted", "parent deleted"])
    def test_a_trial_that_had_ended_counts_as_not_done(self, how: str) -> None:
        with recorder() as (_, sweep_recorder):
            sweep_recorder.sender.start()
            sweep_recorder.start_sweep("note", [])
            record(sweep_recorder, TRIALS[0])
            stored(sweep_recorder)
            lose(how)
            record(sweep_recorder, TRIALS[1])
            sweep_recorder.end_sweep("FINISHED", "note", {})
            assert sweep_recorder.sender.finish(60), sweep_recorder.sender.trouble
            assert sweep_recorder.sender.find_lost(t.id for t in TRIALS[:2]) == [TRIALS[0].id]
        assert count_by_state(resume.find_done(PLANNED, NAME)[0]) == "3 trials: 1 done, 2 to run"
        sweep(TRIALS[0])
        assert count_by_state(resume.find_done(PLANNED, NAME)[0]) == "3 trials: 2 done, 1 to run"

    def test_what_is_refused_for_good_counts_as_not_done_until_it_is_recorded_anew(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        end, refused_runs = Tracker._end, set[str]()

        def refuses(self: Tracker, body: Any, *arguments: Any) -> None:
            refused_runs.add(min(refused_runs, default=body["run"]))
            if body["run"] in refused_runs:
                raise StoreRefused("too large")
            end(self, body, *arguments)

        monkeypatch.setattr(Tracker, "_end", refuses)
        with recorder() as (_, sweep_recorder):
            sweep_recorder.sender.start()
            sweep_recorder.start_sweep("note", [])
            record(sweep_recorder, *TRIALS[:2])
            sweep_recorder.end_sweep("FINISHED", "note", {})
            assert not sweep_recorder.sender.finish(60)
            assert sweep_recorder.sender.refused == ["too large"]
        assert count_by_state(resume.find_done(PLANNED, NAME)[0]) == "3 trials: 1 done, 2 to run"
        assert Path(".masksweep").exists(), "what was measured is kept"
        sweep(TRIALS[0])
        assert count_by_state(resume.find_done(PLANNED, NAME)[0]) == "3 trials: 2 done, 1 to run"
        assert not Path(".masksweep").exists()

    def test_a_store_that_is_lost_while_a_lot_is_sent_one_by_one_is_given_all(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        apply, refusals = Tracker.apply, count()

        def lost_after_a_refusal(*arguments: Any) -> None:
            try:
                apply(*arguments)
            except StoreRefused:
                if not next(refusals):
                    lose("deleted")
                raise

        monkeypatch.setattr(Tracker, "apply", lost_after_a_refusal)
        with recorder() as (_, sweep_recorder):
            sweep_recorder.start_sweep("note", [])
            sweep_recorder.start_trial(TRIALS[0], "good")
            sweep_recorder.sender.send(sweep_recorder.sender.oldest())
            sweep_recorder.log(TRIALS[0], 1, {"not a name?": 1.0})
            sweep_recorder.end_trial(TRIALS[0], RESULT)
            sweep_recorder.end_sweep("FINISHED", "note", {})
            sweep_recorder.sender.start()
            assert not sweep_recorder.sender.finish(60)
            assert sweep_recorder.sender.waiting == 1, sweep_recorder.sender.refused
            assert "not a name?" in sweep_recorder.sender.refused[0]
            assert sweep_recorder.sender.find_lost([TRIALS[0].id]) == []
        (run,) = children()
        assert run.info.status == "FINISHED"

    def test_what_is_refused_of_a_run_again_and_again_is_no_reason_to_send_all_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send_again, resent = Spool.send_again, list[bool]()

        def counting(self: Spool) -> bool:
            resent.append(send_again(self))
            return resent[-1]

        monkeypatch.setattr(Spool, "send_again", counting)
        with recorder() as (_, sweep_recorder):
            sweep_recorder.start_sweep("note", [])
            for t in TRIALS[:2]:
                sweep_recorder.start_trial(t, t.name)
            for epoch in range(1, 6):
                for t, name in zip(TRIALS, ("not a name?", "train/loss"), strict=False):
                    sweep_recorder.log(t, epoch, {name: 1.0})
                while batch := sweep_recorder.sender.oldest():
                    sweep_recorder.sender.send(batch)
            assert sweep_recorder.sender.waiting == 5
            assert resent == [True]

    def test_what_the_store_lost_is_told_beside_what_waits_and_what_it_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        end = Tracker._end

        def refuses(self: Tracker, body: Any, *arguments: Any) -> None:
            if body["trial"] == TRIALS[1].id:
                raise StoreRefused("too large")
            end(self, body, *arguments)

        monkeypatch.setattr(Tracker, "_end", refuses)
        with recorder() as (_, sweep_recorder):
            sweep_recorder.start_sweep("note", [])
            record(sweep_recorder, *TRIALS[:2])
            while batch := sweep_recorder.sender.oldest():
                sweep_recorder.sender.send(batch)
            record(sweep_recorder, TRIALS[2])
            assert sweep_recorder.sender.find_lost(t.id for t in TRIALS) == []
            lose("trial deleted")
            assert sweep_recorder.sender.find_lost(t.id for t in TRIALS) == [TRIALS[0].id]

    def test_a_spool_of_an_earlier_version_is_read(self) -> None:
        spool, before = records()
        with closing(spool._db) as db:
            for column in ("run", "sent"):
                db.execute(f"ALTER TABLE record DROP COLUMN {column}")
        sweep()
        assert len(before) == 12
        assert count_by_state(resume.find_done(PLANNED, NAME)[0]) == "3 trials: 2 done, 1 to run"
        assert not Path(".masksweep").exists()


def test_no_run_ends_before_it_began_where_the_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jumps = iter([2e9, 2e9 + 60, 1e9])
    clock = {"now": 0.0}

    def jump() -> float:
        clock["now"] = next(jumps, clock["now"])
        return clock["now"]

    with recorder() as (_, sweep_recorder), monkeypatch.context() as patched:
        patched.setattr("masksweep.sweeps.tracking.recorder.time.time", jump)
        sweep_recorder.start_sweep("note", [])
        record(sweep_recorder, TRIALS[0])
        sweep_recorder.end_sweep("FINISHED", "note", {})
    with closing(Spool(resume.address(TRIALS[0].tracking, NAME).path)) as spool:
        times = [r.body["time"] for r in spool.oldest(9)]
    assert times == sorted(times)
    assert len(times) > 3
