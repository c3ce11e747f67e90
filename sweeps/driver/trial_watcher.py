"""Passes the events of trials to the recorder and the display."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.driver.progress import Display
from masksweep.sweeps.driver.sweep_jobs import log_file
from masksweep.sweeps.launch.job import Failure, Watcher
from masksweep.sweeps.launch.worker import Log, log_tail
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking.recorder import Recorder
from masksweep.sweeps.tracking.run_config import RecordedResults
from masksweep.sweeps.training import checkpoint


class TrialWatcher(Watcher):
    """Records and shows each trial of the jobs that it watches.

    Args:
        planned: The trials.
        recorder: Records the trials.
        display: Shows the trials.
        logs: Folder of the trials' log files.
        checkpoints: Folder or URI of the trials' checkpoints. A trial's checkpoints are deleted
            when it has ended.
        rerun: Whether trials are recorded although the store has them.
        tags: Additional tags of the runs, by trial id.
    """

    def __init__(
        self,
        planned: Sequence[PlannedTrial],
        recorder: Recorder,
        display: Display,
        *,
        logs: Path,
        checkpoints: str,
        rerun: bool = False,
        tags: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._recorder, self._display = recorder, display
        self._logs, self._checkpoints, self._rerun = logs, checkpoints, rerun
        self._tags = tags or {}
        self._by_id = {p.trial.id: p for p in planned}
        self._outputs: dict[str, bytes] = {}
        """The captured output of each running trial, by id."""
        self._retries: dict[str, int] = {}
        """Number of retries of each trial whose run is open, by id."""
        self.outcomes: dict[str, Outcome] = {}
        """Outcome of each trial that has ended, by id."""
        self.failed_logs: dict[str, Path] = {}
        """Log file of each trial that failed, by id."""
        self.environments: dict[str, list[str]] = {}
        """Names of the trials that ran in an environment, by its description."""

    # -- events of the executor ------------------------------------------------------------------

    def started(self, key: str, worker: int) -> None:
        trial_ids = key.split()
        for trial_id in trial_ids:
            self._open_run(trial_id)
            self._display.started(trial_id, self._by_id[trial_id].name, worker, 1 / len(trial_ids))

    def event(self, key: str, event: Any) -> None:
        key, event = event
        if isinstance(event, Log):
            self._outputs[key] = event.text.encode()
            return
        self._display.reported(key, event)
        if event.metrics:
            self._recorder.log(self._by_id[key].trial, event.epoch, event.metrics)

    def retried(self, key: str, reason: str) -> None:
        for trial_id in key.split():
            self._retries[trial_id] += 1
            self._display.retried(trial_id, reason)

    def ended(self, key: str, result: Mapping[str, TrialResult | Failure] | Failure) -> None:
        for trial_id in key.split():
            self.end(trial_id, result if isinstance(result, Failure) else result[trial_id])

    def trial_recorded(self, outcome: Outcome, record: RecordedResults | None) -> None:
        """Called when a trial has ended and is recorded; `record` is None if the trial failed."""

    # -- records -----------------------------------------------------------------------------------

    def _open_run(self, key: str) -> None:
        """Opens the run of a trial, unless it is already open."""
        if key not in self._retries:
            self._retries[key] = 0
            p = self._by_id[key]
            log_file(p, self._logs).unlink(missing_ok=True)  # the log of an earlier run
            self._recorder.start_trial(p.trial, p.name, again=self._rerun, tags=self._tags.get(key))

    def end(self, key: str, result: TrialResult | Failure) -> None:
        """Records how a trial ended.

        Args:
            key: The trial's id.
            result: The trial's result, or its failure.
        """
        self._open_run(key)  # a trial can fail before a worker has started it
        p, retries = self._by_id[key], self._retries.pop(key)
        path, printed = log_file(p, self._logs), self._outputs.pop(key, b"")
        if not printed and path.exists():  # the worker was killed before it sent its log
            printed = log_tail(path)
        files = {"log.txt": printed} if printed else {}
        record: RecordedResults | None = None
        if isinstance(result, Failure):
            outcome = Outcome(p.trial, p.variant, "failed", reason=result.reason)
            self.failed_logs[key] = path
            if not path.exists():  # the log is on another machine, or was never begun
                with contextlib.suppress(OSError):  # the store has the log too
                    path.write_bytes(printed or result.traceback.encode())
            files["traceback.txt"] = result.traceback.encode()
            self._recorder.fail_trial(p.trial, result.reason, files, retries)
            if result.cause == "diverged":  # from its checkpoint the trial would diverge again
                checkpoint.clear(self._checkpoints, key)
        else:
            if environment := result.artifacts.get("environment.txt"):
                self.environments.setdefault(environment.decode(), []).append(p.name)
            small = replace(result, artifacts={})  # all models of a sweep would not fit into memory
            outcome = Outcome(p.trial, p.variant, result.status, small, result.reason)
            result = replace(result, artifacts={**result.artifacts, **files})
            record = self._recorder.end_trial(p.trial, result, retries)
            checkpoint.clear(self._checkpoints, key)
        self.outcomes[key] = outcome
        self._display.ended(outcome)
        self.trial_recorded(outcome, record)
