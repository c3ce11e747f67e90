"""The only file that knows MLflow; only the driver calls it."""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from strategies.base import Invalid
from sweeps.config import Tracking, Trial, flat, recorded
from sweeps.trial import TrialResult

BATCH = 1000
"""The most metrics that MLflow takes in a call."""


def store_uri(given: str | None) -> str:
    """The tracking store: as given, MLFLOW_TRACKING_URI, or `mlflow.db` in the current folder.

    Absolute, because MLflow resolves a relative SQLite path anew in each process.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    prefix = "sqlite:///"
    if uri.startswith(prefix) and not uri.removeprefix(prefix).startswith("/"):
        uri = f"{prefix}{Path(uri.removeprefix(prefix)).absolute()}"
    return uri


def is_local(uri: str) -> bool:
    """Whether the store is a database, not a server."""
    return not uri.startswith(("http://", "https://", "databricks"))


class Tracker:
    """One sweep's parent run and a child run for each trial.

    Metrics are kept until a trial's end or a second has passed, and sent in batches.
    """

    def __init__(self, tracking: Tracking) -> None:
        """Open the store. Raises `Invalid` if it cannot be, or the experiment was deleted."""
        # an unreachable server would hold each call for minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        # MLflow's own use of deprecated calls is no concern of the person who runs a sweep
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        uri, experiment = store_uri(tracking.uri), tracking.experiment
        try:
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            # beside the database; a folder named mlruns would turn a bare `mlflow ui` away
            root = (Path.cwd() / "mlartifacts").as_uri() if is_local(uri) else None
            self._experiment: str = (
                found.experiment_id
                if found
                else self._client.create_experiment(experiment, artifact_location=root)
            )
        except MlflowException as error:
            shown = re.sub(r"//[^/@]*@", "//", uri)
            reason = str(error).strip().splitlines()[0].replace(uri, shown)
            raise Invalid("tracking.uri", shown, f"cannot be opened: {reason}") from error
        if found and found.lifecycle_stage != "active":
            raise Invalid("tracking.experiment", experiment, "was deleted; restore it, or another")
        self.parent = ""
        self._shared: dict[str, str] = {}
        self._open: dict[str, str] = {}
        self._metrics: dict[str, list[Any]] = {}
        self._sent: dict[str, float] = {}
        self._logged: dict[str, set[tuple[str, int]]] = {}

    # -- the sweep -----------------------------------------------------------------------------

    def start_sweep(self, name: str, note: str, plan: Sequence[Mapping[str, Any]]) -> str:
        """Open the parent run; its id."""
        self._shared = {"sweep.name": name}
        tags = {**self._shared, "mlflow.note.content": note}
        run = self._client.create_run(self._experiment, tags=tags, run_name=name)
        self.parent = run.info.run_id
        self._client.log_dict(self.parent, {"trials": list(plan)}, "plan.json")
        return self.parent

    def end_sweep(self, status: str, note: str, table: str) -> None:
        """Close the parent run, with its table as text and in its description."""
        self._client.set_tag(self.parent, "mlflow.note.content", note)
        self._client.log_text(self.parent, table, "table.txt")
        self._client.set_terminated(self.parent, status)

    # -- its trials ----------------------------------------------------------------------------

    def start_trial(self, trial: Trial, name: str) -> None:
        """Open a trial's run under this name, with its tags and params."""
        from mlflow.entities import Param

        pattern = "-" if trial.strategy.role == "dense" else trial.pattern.name
        tags = {
            **self._shared,
            "mlflow.parentRunId": self.parent,
            "trial.id": trial.id,
            "trial.strategy": trial.label,
            "trial.pattern": pattern,
            "trial.seed": str(trial.seed),
        }
        if trial.sparsity is not None:
            tags["trial.sparsity"] = f"{trial.sparsity:g}"
        run = self._client.create_run(self._experiment, tags=tags, run_name=name)
        self._open[trial.id] = run.info.run_id
        config = recorded(trial)
        params = [Param(key, str(value)[:6000]) for key, value in flat(config).items()]
        self._client.log_batch(run.info.run_id, params=params)
        self._client.log_text(run.info.run_id, OmegaConf.to_yaml(config), "config.yaml")

    def log(self, trial: Trial, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of one step; what a trial has logged once is not logged again by its retry."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        waiting = self._metrics.setdefault(trial.id, [])
        known = self._logged.setdefault(trial.id, set())
        waiting += [Metric(k, v, now, step) for k, v in metrics.items() if (k, step) not in known]
        known |= {(k, step) for k in metrics}
        if time.monotonic() - self._sent.get(trial.id, 0.0) > 1:
            self._flush(trial.id)

    def _flush(self, key: str) -> str:
        """Send a trial's waiting metrics; its run's id."""
        waiting, run = self._metrics.pop(key, []), self._open[key]
        for i in range(0, len(waiting), BATCH):
            self._client.log_batch(run, metrics=waiting[i : i + BATCH])
        self._sent[key] = time.monotonic()
        return run

    def end_trial(self, trial: Trial, result: TrialResult) -> None:
        """Close a trial's run with what it found, or the reason why it was skipped."""
        # a curve ends with the last epoch; what has no step but 0 MLflow draws as bars
        curves = ("train/", "validation/", "test/")
        ends = {k: v for k, v in result.metrics.items() if k.startswith(curves)}
        self.log(trial, ends, result.epochs)
        self.log(trial, {k: v for k, v in result.metrics.items() if k not in ends}, 0)
        run = self._close(trial)
        tags = {"trial.status": result.status, **result.tags}
        if "sparsity/achieved" in result.metrics and trial.sparsity is None:
            tags["trial.sparsity"] = f"{result.metrics['sparsity/achieved']:.4g}"
        if result.reason:
            tags["trial.reason"] = result.reason
        for key, value in tags.items():
            self._client.set_tag(run, key, value)
        if result.data:
            self._client.log_inputs(run, [_dataset(result.data)])
        self._artifacts(run, result.artifacts)
        self._client.set_terminated(run, "FINISHED")

    def fail_trial(self, trial: Trial, reason: str, traceback: str) -> None:
        """Close a trial's run as failed."""
        run = self._close(trial)
        self._client.set_tag(run, "trial.status", "failed")
        self._client.set_tag(run, "trial.reason", reason[:5000])
        self._client.log_text(run, traceback, "traceback.txt")
        self._client.set_terminated(run, "FAILED")

    def kill_open_trials(self) -> None:
        """Close the runs of the trials that were interrupted; their curves are kept."""
        for key in list(self._open):
            self._client.set_terminated(self._flush(key), "KILLED")
            del self._open[key]

    def _close(self, trial: Trial) -> str:
        run = self._flush(trial.id)
        del self._open[trial.id], self._logged[trial.id]
        return run

    def _artifacts(self, run: str, artifacts: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in artifacts.items():
                (Path(folder) / name).write_bytes(content)
            self._client.log_artifacts(run, folder)


def _dataset(data: Mapping[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    shapes = {"features": data["features"], "targets": data["targets"]}
    dataset = Dataset(
        name=data["name"],
        digest=data["sha256"][:8],
        source_type="code",
        source=json.dumps({"name": data["name"], "sha256": data["sha256"]}),
        profile=json.dumps({"num_rows": data["features"][0], **shapes}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training")])
