"""Ten thousand trials: none lost, none doubled, and a driver that stays small."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from sweeps import resume
from sweeps.cluster import Spec
from sweeps.engine import Engine
from sweeps.job import Emit, Job
from sweeps.plan import Planned
from sweeps.stopping import Stop
from sweeps.sweep import Sweep
from sweeps.trial import Report, TrialResult
from tests.trials import trial

TRIALS = 10_000


class Trivial:
    """A trial that takes no time, with an artifact of the size of a small model."""

    def setup(self, spec: Spec) -> None:
        pass

    def run(self, payload: Any, emit: Emit) -> TrialResult:
        emit(Report(1, 2, 1, {"train/loss": 1.0}))
        metrics = {"train/loss": 0.5, "test/accuracy": 0.5, "integrity/ok": 1.0}
        return TrialResult("ok", metrics=metrics, artifacts={"a": bytes(100_000)}, epochs=2)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_ten_thousand_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store is away, so that all of it is on disk in the end and can be counted there."""
    ray.cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["Trivial"]))
    monkeypatch.chdir(tmp_path)
    tracking = {"uri": "http://127.0.0.1:1", "patience_s": 0}
    trials = [trial(seed=i, tracking=tracking) for i in range(TRIALS)]
    planned = [Planned(t, [f"seed={t.seed}"]) for t in trials]
    driver, sizes = psutil.Process(), []

    class Watched(Sweep):
        def ended(self, key: str, result: Any) -> None:
            super().ended(key, result)
            sizes.append(driver.memory_info().rss)

    with resume.opened(planned, "scale", rerun=False) as (planned, recorder, away), Stop() as stop:
        assert away
        jobs = [Job(p.trial.id, p.trial.seed, Spec()) for p in planned]
        with Engine(jobs, Trivial()) as engine:
            ended = Watched(planned, recorder, stop, "scale", "note", False).run(engine)
    assert len(ended.outcomes) == TRIALS
    assert ended.exit_code == 1, "the store has nothing of it"
    path = resume.address(trials[0].tracking, "scale").path
    with sqlite3.connect(path) as spool:
        bodies = "SELECT json_extract(body, '$.run') FROM record WHERE kind = ?"
        for kind in ("trial", "metrics", "end"):
            runs = Counter(run for (run,) in spool.execute(bodies, (kind,)))
            assert len(runs) == TRIALS, kind
            assert set(runs.values()) == {1}, kind
        ends = spool.execute("SELECT json_extract(body, '$.trial') FROM record WHERE kind = 'end'")
        assert {key for (key,) in ends} == {t.id for t in trials}
    spool.close()
    assert max(sizes) < 2**30
    # flat: what a trial leaves behind is its outcome, some kB
    half = sizes[len(sizes) // 2]
    assert sizes[-1] - half < 100 * 2**20
    assert len(capsys.readouterr().err.splitlines()) < 300
