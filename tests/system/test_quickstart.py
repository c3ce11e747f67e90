"""The main job as the README gives it, whole."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from mlflow import MlflowClient

from masksweep.strategies import STRATEGIES
from tests.support.sweep_process import clean_env


@pytest.mark.slow
def test_the_quickstart_shows_which_strategies_hold(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "masksweep.sweeps.cli", "run", "+experiment=quickstart"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=clean_env(),
    )
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("masksweep")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "run_name = 'quickstart'")
    children = client.search_runs(
        [experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    assert len(children) == 80
    assert {run.info.status for run in children} == {"FINISHED"}
    every = set(STRATEGIES) - {"row_lookup"}  # which takes rows alone
    assert {run.data.tags["trial.strategy"] for run in children} == every
    digests = defaultdict(set)
    for run in children:
        tags, metrics = run.data.tags, run.data.metrics
        assert tags["trial.status"] == "ok"
        match STRATEGIES[tags["trial.strategy"]].role:
            case "strategy":
                assert metrics["integrity/ok"] == 1, tags
                assert metrics["integrity/peak_violations"] == 0
            case "control":
                assert metrics["integrity/ok"] == 0
                assert metrics["integrity/violations"] > 0
            case "dense":
                assert "integrity/ok" not in metrics
        digests[tags["trial.pattern"], tags["trial.seed"]].add(
            tags["trial.weights_sha256"]
            if tags["trial.strategy"] in ("weight_mask", "gradient_mask", "projection", "hard_mask")
            else ""
        )
    # the ways that must walk the same path end with the same bits, seed by seed
    assert all(len(found - {""}) == 1 for key, found in digests.items() if key[0] != "-")
