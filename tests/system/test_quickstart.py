"""Runs the README's quickstart, and checks every trial of it."""

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
    process = subprocess.run(
        [sys.executable, "-m", "masksweep.sweeps.cli", "run", "+experiment=quickstart"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=clean_env(),
    )
    assert process.returncode == 0, process.stderr
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("masksweep")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "run_name = 'quickstart'")
    children = client.search_runs(
        [experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    assert len(children) == 80
    assert {run.info.status for run in children} == {"FINISHED"}
    expected = set(STRATEGIES) - {"row_lookup"}  # which masks whole rows only
    assert {run.data.tags["trial.strategy"] for run in children} == expected
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
    # equivalent strategies end with the same bits, for each pattern and seed
    assert all(len(weights - {""}) == 1 for key, weights in digests.items() if key[0] != "-")
