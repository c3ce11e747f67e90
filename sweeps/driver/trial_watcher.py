"""What happens to trials, on its way to the recorder and the display."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.plan import Planned
from masksweep.sweeps.driver.progress import Display
from masksweep.sweeps.driver.sweep_jobs import log_file
from masksweep.sweeps.launch.job import Failure, Watcher
from masksweep.sweeps.launch.worker import LOG_BYTES, Log
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking.recorder import Recorder
from masksweep.sweeps.tracking.run_config import Recorded
from masksweep.sweeps.training import checkpoint


class TrialWatcher(Watcher):
    """Records and shows each trial of the jobs that it watches.

    Args:
        planned: The trials.
        recorder: Where they are recorded.
        display: Where they are shown.
        logs: The folder of their logs.
        checkpoints: The folder or URI of their checkpoints, which go when a trial has ended.
        rerun: Whether they are recorded although the store has them.
        tags: More tags of runs, by trial id.
    """

    def __init__(
        self,
        planned: Sequence[Planned],
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
        self._printed: dict[str, bytes] = {}
        self._retries: dict[str, int] = {}
        self.outcomes: dict[str, Outcome] = {}
        """How each trial ended, by id."""
        self.failed_logs: dict[str, Path] = {}
        """The log of each trial that failed, by id."""
        self.environments: dict[str, list[str]] = {}
        """Names of trials by what they ran on."""

    # -- as an executor goes on ------------------------------------------------------------------

    def started(self, key: str, worker: int) -> None:
        trials = key.split()
        for each in trials:
            self._begin(each)
            self._display.started(each, self._by_id[each].name, worker, 1 / len(trials))

    def event(self, key: str, event: Any) -> None:
        key, event = event
        if isinstance(event, Log):
            self._printed[key] = event.text.encode()
            return
        self._display.reported(key, event)
        if event.metrics:
            self._recorder.log(self._by_id[key].trial, event.epoch, event.metrics)

    def retried(self, key: str, reason: str) -> None:
        for each in key.split():
            self._retries[each] += 1
            self._display.retried(each, reason)

    def ended(self, key: str, result: Mapping[str, TrialResult | Failure] | Failure) -> None:
        for each in key.split():
            self.end(each, result if isinstance(result, Failure) else result[each])

    def finished(self, outcome: Outcome, record: Recorded | None) -> None:
        """A trial has ended and is recorded; without a record, it failed."""

    # ----------------------------------------------------------------------------------------------

    def _begin(self, key: str) -> None:
        if key not in self._retries:
            self._retries[key] = 0
            p = self._by_id[key]
            log_file(p, self._logs).unlink(missing_ok=True)  # an earlier run's
            self._recorder.start_trial(p.trial, p.name, again=self._rerun, tags=self._tags.get(key))

    def end(self, key: str, result: TrialResult | Failure) -> None:
        """Record how a trial ended."""
        self._begin(key)  # it may fail before a worker has it
        p, retries = self._by_id[key], self._retries.pop(key)
        path, printed = log_file(p, self._logs), self._printed.pop(key, b"")
        if not printed and path.exists():  # the worker was killed before it could send it
            printed = path.read_bytes()[-LOG_BYTES:]
        files = {"log.txt": printed} if printed else {}
        record: Recorded | None = None
        if isinstance(result, Failure):
            outcome = Outcome(p.trial, p.variant, "failed", reason=result.reason)
            self.failed_logs[key] = path
            if not path.exists():  # it was written on another machine, or never begun
                with contextlib.suppress(OSError):  # the store has it too
                    path.write_bytes(printed or result.traceback.encode())
            files["traceback.txt"] = result.traceback.encode()
            self._recorder.fail_trial(p.trial, result.reason, files, retries)
            if result.cause == "diverged":  # from its checkpoint it would do so again
                checkpoint.clear(self._checkpoints, key)
        else:
            if environment := result.artifacts.get("environment.txt"):
                self.environments.setdefault(environment.decode(), []).append(p.name)
            small = replace(result, artifacts={})  # a sweep's models would not fit into memory
            outcome = Outcome(p.trial, p.variant, result.status, small, result.reason)
            result = replace(result, artifacts={**result.artifacts, **files})
            record = self._recorder.end_trial(p.trial, result, retries)
            checkpoint.clear(self._checkpoints, key)
        self.outcomes[key] = outcome
        self._display.ended(outcome)
        self.finished(outcome, record)
