"""Records the events of a sweep in the spool on disk."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from masksweep.sweeps.common.provenance import code_version
from masksweep.sweeps.config.display import flatten
from masksweep.sweeps.config.trial import Trial, recorded_config
from masksweep.sweeps.results import CURVE_PREFIXES, TrialResult
from masksweep.sweeps.tracking import run_config
from masksweep.sweeps.tracking.run_config import RecordedResults
from masksweep.sweeps.tracking.sender import Sender
from masksweep.sweeps.tracking.spool import Spool


class Recorder:
    """Writes a sweep's records to its spool, from which `sender` sends them to the store.

    When a method returns, its record is on disk. So the record is not lost if the store is away or
    this process ends.

    Args:
        spool: The sweep's spool, held by this process.
        sender: Sends the records of this spool.
    """

    def __init__(self, spool: Spool, sender: Sender) -> None:
        self._spool, self.sender = spool, sender
        self._runs: dict[str, str] = {}
        """Key of the open run of each trial, by trial id."""
        self._known: dict[str, dict[tuple[str, int], float]] = {}
        """The values logged for each trial with an open run, by (metric, epoch)."""
        self._latest = 0
        """Time of the latest record, in milliseconds since 1970."""

    def start_sweep(
        self,
        note: str,
        plan: Sequence[Mapping[str, Any]],
        scores: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Opens the parent run, or opens it again; closes runs that an earlier driver left open.

        Args:
            note: Description of the parent run, in Markdown.
            plan: The plan of the sweep, one entry per trial.
            scores: Names of the metrics that the trials are compared by, as `test/accuracy`. If
                empty, MLflow's page gets no view of the sweep.
            tags: Additional tags of the parent run.
            files: Content of the parent run's first files, by name.
        """
        extra = {"score_metrics": list(scores), "tags": dict(tags or {})}
        self._put("sweep", files, note=note, plan=list(plan), **extra)

    def end_sweep(
        self,
        status: str,
        note: str,
        files: Mapping[str, bytes],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Closes the parent run.

        Args:
            status: Status in MLflow: `FINISHED`, `FAILED` or `KILLED`.
            note: Description of the parent run, in Markdown.
            files: Content of the parent run's files, by name.
            metrics: Metrics of the parent run.
        """
        self._put("close", files, status=status, note=note, metrics=dict(metrics or {}))

    def start_trial(
        self, trial: Trial, name: str, again: bool = False, tags: Mapping[str, str] | None = None
    ) -> None:
        """Opens the run of a trial.

        Args:
            trial: The trial.
            name: Name of the run.
            again: Whether the trial gets a new run even if the store has a finished one.
            tags: Additional tags of the run.
        """
        run = self._runs[trial.id] = uuid.uuid4().hex
        self._known[trial.id] = {}
        tags = {
            **(tags or {}),
            "trial.id": trial.id,
            "trial.strategy": trial.label,
            "trial.pattern": "-" if trial.strategy.role == "dense" else trial.pattern.name,
            "trial.seed": str(trial.seed),
            "trial.code": code_version(),
        }
        if trial.sparsity is not None:
            tags["trial.sparsity"] = f"{trial.sparsity:g}"
        self._put(
            "trial",
            run=run,
            name=name,
            again=again,
            tags=tags,
            params=flatten(recorded_config(trial)),
            config=run_config.config_text(trial),
        )

    def log(self, trial: Trial, step: int, metrics: Mapping[str, float]) -> None:
        """Records metrics of a trial at an epoch.

        Values that the trial has already logged are skipped, because a retry logs them once more.

        Args:
            trial: The trial.
            step: The epoch, from 1.
            metrics: Values by metric.
        """
        if values := self._unlogged(trial, step, metrics):
            run = self._runs[trial.id]
            self._put("metrics", run=run, trial=trial.id, step=step, values=values)

    def _unlogged(self, trial: Trial, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Returns the values that the trial has not logged before, and remembers them."""
        known = self._known[trial.id]
        values = {k: float(v) for k, v in metrics.items() if (k, step) not in known}
        known |= {(k, step): v for k, v in values.items()}
        return values

    def end_trial(self, trial: Trial, result: TrialResult, retries: int = 0) -> RecordedResults:
        """Closes the run of a trial that has finished or was skipped.

        Args:
            trial: The trial.
            result: The trial's result; if it was skipped, this has the reason.
            retries: Number of times that the trial was run again.

        Returns:
            The results as the trial's config file has them.
        """
        # curves get a last point at the last epoch; MLflow draws metrics with only step 0 as bars
        curve_ends = {k: v for k, v in result.metrics.items() if k.startswith(CURVE_PREFIXES)}
        scalars = {k: v for k, v in result.metrics.items() if k not in curve_ends}
        metrics = [
            {"step": result.epochs, "values": self._unlogged(trial, result.epochs, curve_ends)},
            {"step": 0, "values": self._unlogged(trial, 0, scalars)},
        ]
        tags = {"trial.status": result.status, **result.tags}
        if "sparsity/achieved" in result.metrics and trial.sparsity is None:
            tags["trial.sparsity"] = f"{result.metrics['sparsity/achieved']:.4g}"
        if result.reason:
            tags["trial.reason"] = result.reason
        record, files = self._config(trial, result)
        files = {**result.artifacts, **files}
        self._end(trial, "FINISHED", tags, retries, files, metrics, result.data)
        return record

    def _config(
        self, trial: Trial, result: TrialResult, failed: bool = False
    ) -> tuple[RecordedResults, dict[str, bytes]]:
        """Returns the recorded results of an ended trial, and its config file with named files."""
        named_files, run = run_config.copy_named_files(trial), self._runs[trial.id]
        record = run_config.recorded_results(
            trial, run, result, self._curves(trial), named_files, failed
        )
        return record, {
            **named_files,
            run_config.FILE_NAME: run_config.config_text(trial, record).encode(),
        }

    def _curves(self, trial: Trial) -> dict[str, dict[int, float]]:
        """Returns the values of each curve by epoch."""
        curves: dict[str, dict[int, float]] = {}
        for (name, step), value in self._known[trial.id].items():
            if name.startswith(CURVE_PREFIXES):
                curves.setdefault(name, {})[step] = value
        return curves

    def fail_trial(
        self, trial: Trial, reason: str, files: Mapping[str, bytes], retries: int = 0
    ) -> None:
        """Closes the run of a trial that failed; its curves are kept.

        Args:
            trial: The trial.
            reason: Why it failed, in one line.
            files: Content of further files of the run, by name.
            retries: Number of times that the trial was run again.
        """
        tags = {"trial.status": "failed", "trial.reason": reason}
        config = self._config(trial, TrialResult("ok", reason), failed=True)[1]
        self._end(trial, "FAILED", tags, retries, {**files, **config})

    def kill_trials(self) -> None:
        """Closes the runs of the trials that have not ended; their curves are kept."""
        for key in list(self._runs):
            self._close_run(key, "KILLED", {"trial.status": "killed"})

    def _end(
        self,
        trial: Trial,
        status: str,
        tags: Mapping[str, str],
        retries: int,
        files: Mapping[str, bytes],
        metrics: Sequence[Mapping[str, Any]] = (),
        data: Mapping[str, Any] | None = None,
    ) -> None:
        tags = {**tags, "trial.retries": str(retries)} if retries else tags
        self._close_run(trial.id, status, tags, files, metrics, data)

    def _close_run(
        self,
        key: str,
        status: str,
        tags: Mapping[str, str],
        files: Mapping[str, bytes] | None = None,
        metrics: Sequence[Mapping[str, Any]] = (),
        data: Mapping[str, Any] | None = None,
    ) -> None:
        body = {"run": self._runs.pop(key), "trial": key, "status": status, "tags": dict(tags)}
        body["code"] = code_version()
        del self._known[key]
        self._put("end", files, **body, metrics=list(metrics), data=dict(data or {}))

    def _put(self, kind: str, files: Mapping[str, bytes] | None = None, **body: Any) -> None:
        """Adds a record to the spool, with the current time."""
        # if the clock is set back, a run must still not end before it began
        self._latest = max(self._latest, int(1000 * time.time()))
        self._spool.put(kind, {**body, "time": self._latest}, files)
