"""Records the events of a sweep: first in the spool on disk, then in the tracking store."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.provenance import code_version
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.config.trial import Trial, flat, recorded
from masksweep.sweeps.results import CURVES, TrialResult
from masksweep.sweeps.tracking import run_config
from masksweep.sweeps.tracking.run_config import Recorded
from masksweep.sweeps.tracking.spool import Record, Spool
from masksweep.sweeps.tracking.store import Away, Refused
from masksweep.sweeps.tracking.writer import Tracker

LOT, LARGE = 2000, 50
"""Upper limits of one batch: records in all, and records other than metrics, which are large. A
batch is deleted from the spool only after the store has accepted all of it. So a batch must be
small enough for a store that is up for a short time."""
GATHER_S = 3.0
"""Seconds that metrics wait for more metrics, so that they go out in one call. A call costs the
store far more than a single value, and packed trials report all at once."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Shortest and longest time between two attempts while the store is away, in seconds."""


class Recorder:
    """Writes a sweep's records to the spool, and sends them to the store in a thread of its own.

    When a method returns, its record is on disk. So the record is not lost if the store is away or
    this process ends.

    Args:
        spool: The sweep's spool, held by this process.
        tracking: The store and the experiment.
        name: Name of the sweep.
        tracker: The opened store; None if the store was away.
    """

    def __init__(
        self, spool: Spool, tracking: Tracking, name: str, tracker: Tracker | None
    ) -> None:
        self._spool, self._tracking, self._name, self._tracker = spool, tracking, name, tracker
        self._away_since: float | None = None
        self._runs: dict[str, str] = {}
        """Key of the open run of each trial, by trial id."""
        self._known: dict[str, dict[tuple[str, int], float]] = {}
        """The values logged for each trial with an open run, by (metric, epoch)."""
        self._latest = 0
        """Time of the latest record, in milliseconds since 1970."""
        self._sent_again: set[tuple[str | None, str]] = set()
        """Pairs (run, kind of record) whose refusal has already caused all kept records to be
        sent again."""
        self._stop, self._hurry = threading.Event(), threading.Event()
        self.trouble = ""
        """Why the last attempt to reach the store failed."""
        self._thread = threading.Thread(target=self._send_all, name="recorder", daemon=True)

    # -- events of the sweep -------------------------------------------------------------------

    def start_sweep(
        self,
        note: str,
        plan: Sequence[Mapping[str, Any]],
        scores: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Opens the parent run, or opens it again; closes runs that an earlier driver left open.

        Args:
            note: Description of the parent run, in Markdown.
            plan: The plan of the sweep, one entry per trial.
            scores: Names of the trials' test scores. If empty, MLflow's page gets no view of the
                sweep.
            tags: Additional tags of the parent run.
        """
        extra = {"scores": list(scores), "tags": dict(tags or {})}
        self._put("sweep", None, note=note, plan=list(plan), **extra)

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
            params=flat(recorded(trial)),
            config=run_config.text(trial),
        )

    def log(self, trial: Trial, step: int, metrics: Mapping[str, float]) -> None:
        """Records metrics of a trial at an epoch.

        Values that the trial has already logged are skipped, because a retry logs them once more.

        Args:
            trial: The trial.
            step: The epoch, from 1.
            metrics: Values by metric.
        """
        if values := self._new(trial, step, metrics):
            run = self._runs[trial.id]
            self._put("metrics", run=run, trial=trial.id, step=step, values=values)

    def _new(self, trial: Trial, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Returns the values that the trial has not logged before, and remembers them."""
        known = self._known[trial.id]
        values = {k: float(v) for k, v in metrics.items() if (k, step) not in known}
        known |= {(k, step): v for k, v in values.items()}
        return values

    def end_trial(self, trial: Trial, result: TrialResult, retries: int = 0) -> Recorded:
        """Closes the run of a trial that has finished or was skipped.

        Args:
            trial: The trial.
            result: The trial's result; if it was skipped, this has the reason.
            retries: Number of times that the trial was run again.

        Returns:
            The results as the trial's config file has them.
        """
        # curves get a last point at the last epoch; MLflow draws metrics with only step 0 as bars
        curve_ends = {k: v for k, v in result.metrics.items() if k.startswith(CURVES)}
        scalars = {k: v for k, v in result.metrics.items() if k not in curve_ends}
        metrics = [
            {"step": result.epochs, "values": self._new(trial, result.epochs, curve_ends)},
            {"step": 0, "values": self._new(trial, 0, scalars)},
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
    ) -> tuple[Recorded, dict[str, bytes]]:
        """Returns the recorded results of an ended trial, and its config file with named files."""
        named_files, run = run_config.files(trial), self._runs[trial.id]
        record = run_config.of(trial, run, result, self._curves(trial), named_files, failed)
        return record, {**named_files, run_config.NAME: run_config.text(trial, record).encode()}

    def _curves(self, trial: Trial) -> dict[str, dict[int, float]]:
        """Returns the values of each curve by epoch."""
        curves: dict[str, dict[int, float]] = {}
        for (name, step), value in self._known[trial.id].items():
            if name.startswith(CURVES):
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

    def send_left(self) -> None:
        """Sends the records that an earlier process left.

        Raises:
            Away: The store cannot be reached.
        """
        self._spool.retry_refused()
        while batch := self._oldest():
            self.send(batch)
        self._spool.forget_sent()

    # -- to the store --------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread that sends records."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of records that the store does not have yet."""
        return self._spool.waiting()

    @property
    def refused(self) -> list[str]:
        """Reasons why the store refused records; these records are kept on disk."""
        return self._spool.refused()

    @property
    def away_s(self) -> float:
        """Seconds since the store was found to be away; 0 while it can be reached."""
        since = self._away_since
        return 0.0 if since is None else max(time.monotonic() - since, 0.001)

    def finish(
        self, patience_s: float, tick: Callable[[], None] = lambda: None, hurry: bool = False
    ) -> bool:
        """Sends the waiting records, and stops the thread. Records that were not sent stay on disk.

        Args:
            patience_s: Seconds after which to give up if the store is away.
            tick: Called several times per second. An exception that it raises ends the wait.
            hurry: Whether to give up after `patience_s` even if the store can be reached.

        Returns:
            Whether all records were sent.
        """
        start = time.monotonic()
        self._hurry.set()
        try:
            while self._spool.oldest(1) and self._thread.is_alive():
                tick()
                if (hurry or self.away_s) and time.monotonic() - start > patience_s:
                    break
                time.sleep(0.1)
        finally:
            self._stop.set()
            self._spool.put_signal.set()
            self._thread.join(timeout=2)
        return not self.waiting

    def _send_all(self) -> None:
        """Sends records until `finish` stops the thread."""
        wait = FIRST_WAIT
        while not self._stop.is_set():
            try:
                self._spool.put_signal.clear()
                batch = self._oldest()
                if not batch:
                    self._spool.put_signal.wait(1.0)
                    continue
                if self._gathers(batch):
                    self._hurry.wait(0.2)
                    continue
                self.send(batch)
                wait, self._away_since = FIRST_WAIT, None
            except Exception as error:  # after any error the records are still in the spool
                self.trouble = str(error)
                self._away_since = self._away_since or time.monotonic()
                self._stop.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    def _oldest(self) -> list[Record]:
        """Returns the next batch of records to send."""
        records = self._spool.oldest(LOT)
        large_positions = [n for n, record in enumerate(records) if record.kind != "metrics"]
        return records[: large_positions[LARGE]] if len(large_positions) > LARGE else records

    def _gathers(self, batch: Sequence[Record]) -> bool:
        """Whether to wait for more metrics.

        This is so if the batch has only a few metrics, which have not waited for `GATHER_S` yet.
        """
        if self._hurry.is_set() or len(batch) == LOT or any(r.kind != "metrics" for r in batch):
            return False
        return bool(0 <= time.time() - batch[0].body["time"] / 1000 < GATHER_S)

    def send(self, batch: Sequence[Record]) -> None:
        """Sends a batch of records.

        A record is deleted from the spool when no other record needs it. If the store refuses a
        record, all kept records are sent again first, because the store may have lost the run that
        the record belongs to. If the store refuses the record a second time, or another one of the
        same run and kind, the record is set aside.

        Raises:
            Away: The store cannot be reached.
        """
        try:
            self._send(batch)
        except Refused:
            for record in batch:
                try:
                    if not self._send([record]):
                        return
                except Refused as error:
                    run_and_kind = record.body.get("run"), record.kind
                    if run_and_kind not in self._sent_again and self._spool.send_again():
                        self._sent_again.add(run_and_kind)
                        self._tracker = None
                        return
                    self._spool.refuse(record, str(error))

    def _send(self, batch: Sequence[Record]) -> bool:
        """Returns whether the batch was sent; if not, the kept records must be sent again first."""
        if self._tracker is None or self._tracker.replaced():
            if self._tracker is not None and self._spool.send_again():
                self._tracker = None
                return False
            self._tracker = Tracker(self._tracking, self._name)
        self._tracker.apply(batch, self._spool.files)
        if self._tracker.replaced():
            raise Away("the database was replaced while it was written to")
        self._spool.stored(batch)
        return True

    def lost(self, trials: Iterable[str]) -> list[str]:
        """Returns the given trials whose end is neither in the store nor in the spool.

        Args:
            trials: Ids of trials that have finished.

        Returns:
            Ids of the lost trials; an empty list if the store cannot be asked.
        """
        waiting = self._spool.ended()  # first, since records may be sent in between
        try:
            recorded_ids = waiting | Tracker(self._tracking, self._name).finished().keys()
        except (Away, Refused, Invalid):
            return []
        return [trial for trial in trials if trial not in recorded_ids]
