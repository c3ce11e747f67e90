"""Runs ten thousand trials: none is lost or recorded twice, and the driver's memory stays small."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

from masksweep.sweeps.common.signals import SignalHandler
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.driver.sweep import SweepRun
from masksweep.sweeps.launch.cluster import Spec, cluster
from masksweep.sweeps.launch.engine import Engine
from masksweep.sweeps.launch.job import Emit, Job
from masksweep.sweeps.results import Report, TrialResult
from masksweep.sweeps.tracking import resume
from tests.support.sweep_process import clean_env
from tests.support.trials import trial


@cache
def trials() -> list[Trial]:
    tracking = {"uri": "http://127.0.0.1:1", "patience_s": 0}
    return [trial(seed=i, tracking=tracking) for i in range(10_000)]


class Trivial:
    """A worker whose trials take no time, and return an artifact as large as a small model."""

    def setup(self, spec: Spec) -> None:
        pass

    def run(self, payload: Any, emit: Emit) -> dict[str, TrialResult]:
        (task,) = payload
        emit((task.id, Report(1, 2, 1, {"train/loss": 1.0})))
        metrics = {"train/loss": 0.5, "test/accuracy": 0.5, "integrity/ok": 1.0}
        result = TrialResult("ok", metrics=metrics, artifacts={"a": bytes(100_000)}, epochs=2)
        return {task.id: result}


def main() -> None:
    """Runs all trials, and prints the memory of this process after each trial, in bytes."""
    planned = [PlannedTrial(t, [f"seed={t.seed}"]) for t in trials()]
    driver, rss_bytes = psutil.Process(), []

    class Watched(SweepRun):
        def ended(self, key: str, result: Any) -> None:
            super().ended(key, result)
            rss_bytes.append(driver.memory_info().rss)

    with cluster(), resume.open_sweep(planned, "scale", rerun=False) as (planned, recorder, away):
        assert away
        jobs = [Job(p.trial.id, p.trial.seed, Spec()) for p in planned]
        with SignalHandler() as stop, Engine(jobs, Trivial()) as engine:
            ended = Watched(planned, recorder, stop, "scale", "note", False).run(engine)
    assert len(ended.outcomes) == len(trials())
    assert ended.exit_code == 1, "the store has nothing of it"
    print(json.dumps(rss_bytes))


@pytest.mark.slow
def test_ten_thousand_trials(tmp_path: Path) -> None:
    """The store is unreachable, so at the end all records are on disk and can be counted."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.system.test_scale"],
        cwd=tmp_path,
        env=clean_env(PYTHONPATH=str(Path(__file__).parents[2])),
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    path = tmp_path / resume.address(trials()[0].tracking, "scale").path
    with sqlite3.connect(path) as spool:
        bodies = "SELECT json_extract(body, '$.run') FROM record WHERE kind = ?"
        for kind in ("trial", "metrics", "end"):
            runs = Counter(run for (run,) in spool.execute(bodies, (kind,)))
            assert len(runs) == len(trials()), kind
            assert set(runs.values()) == {1}, kind
        ends = spool.execute("SELECT json_extract(body, '$.trial') FROM record WHERE kind = 'end'")
        assert {key for (key,) in ends} == {t.id for t in trials()}
    spool.close()
    rss_bytes = json.loads(process.stdout)
    assert max(rss_bytes) < 2**30
    # memory hardly grows: the driver keeps only a trial's outcome, a few kB
    middle = rss_bytes[len(rss_bytes) // 2]
    assert rss_bytes[-1] - middle < 100 * 2**20
    assert len(process.stderr.splitlines()) < 300


if __name__ == "__main__":
    main()
