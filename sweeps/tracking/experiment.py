"""An experiment in a tracking store: opened, created, and written to within MLflow's limits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.tracking import mlflow_view
from masksweep.sweeps.tracking.client import client_class, file_id, new_client, opening, search
from masksweep.sweeps.tracking.new_database import create_database
from masksweep.sweeps.tracking.store import (
    creation_lock,
    database_path,
    is_local,
    store_uri,
    translate_errors,
)

MAX_METRICS_PER_CALL = 1000
"""Largest number of metrics that MLflow accepts in one call."""


class Experiment:
    """An experiment in an MLflow store. It is created when the first run is written.

    Args:
        tracking: The store and the name of the experiment.

    Raises:
        Invalid: The store cannot be opened, or the experiment was deleted.
        StoreUnavailable: The store cannot be reached.
    """

    def __init__(self, tracking: Tracking) -> None:
        self._uri, self._experiment_name = store_uri(tracking.uri), tracking.experiment
        client_class()  # a slow import, which needs no lock
        with opening(self._uri):
            if database := database_path(self._uri):
                create_database(database)
            self._client = new_client(self._uri)
            self._experiment = self._find_experiment()
        self._file = file_id(self._uri)

    def _find_experiment(self) -> str:
        """Returns the experiment's id; empty if the experiment does not exist yet."""
        experiment = self._client.get_experiment_by_name(self._experiment_name)
        if experiment and experiment.lifecycle_stage != "active":
            allowed = "was deleted; restore it, or another"
            raise Invalid("tracking.experiment", self._experiment_name, allowed)
        return str(experiment.experiment_id) if experiment else ""

    def _make_experiment(self) -> None:
        """Creates the experiment, unless another process has created it."""
        # not in a folder `mlruns`: then `mlflow ui` without arguments would not open the database
        root = (Path.cwd() / "mlartifacts").as_uri() if is_local(self._uri) else None
        name, tags = self._experiment_name, mlflow_view.EXPERIMENT_TAGS
        with creation_lock(self._uri):
            self._experiment = self._find_experiment() or str(
                self._client.create_experiment(name, root, tags)
            )

    def is_database_replaced(self) -> bool:
        """Whether the database's file was replaced or removed since it was opened."""
        return self._file != file_id(self._uri)

    def check_writable(self) -> None:
        """Writes a tag and deletes it again, to test the store. Raises MLflow's own exceptions."""
        experiment = self._experiment or "0"  # MLflow's default experiment, which always exists
        self._client.set_experiment_tag(experiment, "masksweep.probe", "1")
        self._client.delete_experiment_tag(experiment, "masksweep.probe")

    def _search(self, query: str) -> list[Any]:
        return search(self._client, [self._experiment] if self._experiment else [], query)

    def _log(self, run: str, metrics: Sequence[Any], tags: Mapping[str, str] | None = None) -> None:
        from mlflow.entities import RunTag

        run_tags = [RunTag(k, v[:5000]) for k, v in (tags or {}).items()]
        for i in range(0, max(len(metrics), 1), MAX_METRICS_PER_CALL):
            batch = metrics[i : i + MAX_METRICS_PER_CALL]
            self._client.log_batch(run, metrics=batch, tags=run_tags)

    def _log_files(self, run: str, files: Mapping[str, bytes]) -> None:
        if not files:
            return
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder), files)
            self._client.log_artifacts(run, folder)

    def record_run(
        self,
        name: str,
        params: Mapping[str, str],
        metrics: Sequence[tuple[str, float, int]],
        files: Mapping[str, bytes],
        note: str,
    ) -> None:
        """Writes a run that does not belong to a trial.

        Args:
            name: Name of the run.
            params: Parameters of the run.
            metrics: Metrics as (name, value, step).
            files: Content of the run's files, by name.
            note: Description of the run, in Markdown; MLflow accepts 8,000 characters.

        Raises:
            StoreUnavailable: The store cannot be reached.
            StoreRefused: The store does not accept the run.
        """
        from mlflow.entities import Metric, Param

        with translate_errors():
            if not self._experiment:
                self._make_experiment()
            tags = {"mlflow.note.content": note}
            info = self._client.create_run(self._experiment, tags=tags, run_name=name).info
            run, now = info.run_id, info.start_time
            run_params = [Param(key, value[:6000]) for key, value in params.items()]
            points = [Metric(key, value, now, step) for key, value, step in metrics]
            try:
                self._client.log_batch(run, params=run_params)
                self._log(run, points)
                self._log_files(run, files)
            except Exception:
                self._client.set_terminated(run, "FAILED")
                raise
            self._client.set_terminated(run)


def log_files(uri: str | None, run_id: str, files: Mapping[str, bytes], folder: str) -> None:
    """Adds files to the artifacts of a run.

    Args:
        uri: URI of the store, as `tracking.uri`.
        run_id: Id of the run.
        files: Content of the files, by name.
        folder: Folder in the run's artifacts.

    Raises:
        StoreUnavailable: The store cannot be reached.
        StoreRefused: The store does not accept the files.
    """
    client = client_class()(tracking_uri=store_uri(uri))
    with translate_errors(), tempfile.TemporaryDirectory() as source:
        _write(Path(source), files)
        client.log_artifacts(run_id, source, folder)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder; a name may have folders in it."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
