"""What happens in a sweep, on its way to the tracking store: to disk first, then to the store."""

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
"""Records, and those among them that are no points of curves, which are sent before they are
removed from disk: what a store that comes and goes has to get through at once."""
GATHER_S = 3.0
"""How long points of curves wait for more of their kind: a call costs the store far more than a
point does, and packed trials report all at once."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Seconds between two tries while the store is away."""


class Recorder:
    """Writes a sweep's records to the spool, and sends them on from a thread of its own.

    What was put is on disk when a method returns, so that neither a store that is away nor the
    end of this process loses it.
    """

    def __init__(
        self, spool: Spool, tracking: Tracking, name: str, tracker: Tracker | None
    ) -> None:
        """`tracker` is None if the store was away when it was first looked for."""
        self._spool, self._tracking, self._name, self._tracker = spool, tracking, name, tracker
        self._away_since: float | None = None
        self._runs: dict[str, str] = {}
        self._known: dict[str, dict[tuple[str, int], float]] = {}
        """What was logged of a trial, by metric and epoch."""
        self._latest = 0
        """Time of the latest record, in milliseconds."""
        self._sent_again: set[tuple[str | None, str]] = set()
        """Runs and kinds of records after whose refusal all that is kept was sent again."""
        self._stop, self._hurry = threading.Event(), threading.Event()
        self.trouble = ""
        """Why the store could not be reached when it last could not."""
        self._thread = threading.Thread(target=self._send_all, name="recorder", daemon=True)

    # -- what happened -------------------------------------------------------------------------

    def start_sweep(
        self,
        note: str,
        plan: Sequence[Mapping[str, Any]],
        scores: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Open the parent run, or open it again; what a gone driver left running is closed.

        `scores` are the names of the test scores that its trials will have; without, MLflow's page
        has no view of it.
        """
        told = {"scores": list(scores), "tags": dict(tags or {})}
        self._put("sweep", None, note=note, plan=list(plan), **told)

    def end_sweep(
        self,
        status: str,
        note: str,
        files: Mapping[str, bytes],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Close the parent run, with its description, its files, and what there is to count."""
        self._put("close", files, status=status, note=note, metrics=dict(metrics or {}))

    def start_trial(
        self, trial: Trial, name: str, again: bool = False, tags: Mapping[str, str] | None = None
    ) -> None:
        """Open a trial's run, with more tags; `again` also where the store has it finished."""
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
        """A point of the trial's curves; what it has logged is not logged again by its retry."""
        if values := self._new(trial, step, metrics):
            run = self._runs[trial.id]
            self._put("metrics", run=run, trial=trial.id, step=step, values=values)

    def _new(self, trial: Trial, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        known = self._known[trial.id]
        values = {k: float(v) for k, v in metrics.items() if (k, step) not in known}
        known |= {(k, step): v for k, v in values.items()}
        return values

    def end_trial(self, trial: Trial, result: TrialResult, retries: int = 0) -> Recorded:
        """Close a trial's run with what it found, or the reason why it was skipped.

        What its config file says of it is returned.
        """
        # a curve ends with the last epoch; what has no step but 0 MLflow draws as bars
        ends = {k: v for k, v in result.metrics.items() if k.startswith(CURVES)}
        rest = {k: v for k, v in result.metrics.items() if k not in ends}
        metrics = [
            {"step": result.epochs, "values": self._new(trial, result.epochs, ends)},
            {"step": 0, "values": self._new(trial, 0, rest)},
        ]
        tags = {"trial.status": result.status, **result.tags}
        if "sparsity/achieved" in result.metrics and trial.sparsity is None:
            tags["trial.sparsity"] = f"{result.metrics['sparsity/achieved']:.4g}"
        if result.reason:
            tags["trial.reason"] = result.reason
        found, files = self._config(trial, result)
        files = {**result.artifacts, **files}
        self._end(trial, "FINISHED", tags, retries, files, metrics, result.data)
        return found

    def _config(
        self, trial: Trial, result: TrialResult, failed: bool = False
    ) -> tuple[Recorded, dict[str, bytes]]:
        """What the config file says of a trial that has ended; that file, with those it names."""
        given, run = run_config.files(trial), self._runs[trial.id]
        found = run_config.of(trial, run, result, self._curves(trial), given, failed)
        return found, {**given, run_config.NAME: run_config.text(trial, found).encode()}

    def _curves(self, trial: Trial) -> dict[str, dict[int, float]]:
        found: dict[str, dict[int, float]] = {}
        for (name, step), value in self._known[trial.id].items():
            if name.startswith(CURVES):
                found.setdefault(name, {})[step] = value
        return found

    def fail_trial(
        self, trial: Trial, reason: str, files: Mapping[str, bytes], retries: int = 0
    ) -> None:
        """Close a trial's run as failed; its curves are kept."""
        tags = {"trial.status": "failed", "trial.reason": reason}
        config = self._config(trial, TrialResult("ok", reason), failed=True)[1]
        self._end(trial, "FAILED", tags, retries, {**files, **config})

    def kill_trials(self) -> None:
        """Close the runs of the trials that have not ended; their curves are kept."""
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
        # a clock that is set back must not have a run end before it began
        self._latest = max(self._latest, int(1000 * time.time()))
        self._spool.put(kind, {**body, "time": self._latest}, files)

    def send_left(self) -> None:
        """Send what an earlier process left. Raises `Away`."""
        self._spool.retry_refused()
        while lot := self._oldest():
            self.send(lot)
        self._spool.forget_sent()

    # -- to the store --------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Records that the store does not have yet."""
        return self._spool.waiting()

    @property
    def refused(self) -> list[str]:
        """Why the store would not take records; they are kept on disk."""
        return self._spool.refused()

    @property
    def away_s(self) -> float:
        """Seconds since the store was first found away; 0 while it can be reached."""
        since = self._away_since
        return 0.0 if since is None else max(time.monotonic() - since, 0.001)

    def finish(
        self, patience_s: float, tick: Callable[[], None] = lambda: None, hurry: bool = False
    ) -> bool:
        """Send what waits; whether all was sent. What was not is kept on disk.

        Ends when the patience is over: while the store is away, or in a `hurry` in any case. It
        ends as well with whatever `tick` raises; that is called several times a second.
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
        wait = FIRST_WAIT
        while not self._stop.is_set():
            try:
                self._spool.put_signal.clear()
                lot = self._oldest()
                if not lot:
                    self._spool.put_signal.wait(1.0)
                    continue
                if self._gathers(lot):
                    self._hurry.wait(0.2)
                    continue
                self.send(lot)
                wait, self._away_since = FIRST_WAIT, None
            except Exception as error:  # whatever it is, the records are safe where they are
                self.trouble = str(error)
                self._away_since = self._away_since or time.monotonic()
                self._stop.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    def _oldest(self) -> list[Record]:
        """What is to be sent next."""
        found = self._spool.oldest(LOT)
        large = [n for n, record in enumerate(found) if record.kind != "metrics"]
        return found[: large[LARGE]] if len(large) > LARGE else found

    def _gathers(self, lot: Sequence[Record]) -> bool:
        """Whether nothing waits but a few points of curves, which have not waited long."""
        if self._hurry.is_set() or len(lot) == LOT or any(r.kind != "metrics" for r in lot):
            return False
        return bool(0 <= time.time() - lot[0].body["time"] / 1000 < GATHER_S)

    def send(self, lot: Sequence[Record]) -> None:
        """Send records; they are removed from disk when nothing needs them any more.

        What the store refuses is sent once more after all that is kept: the store may have lost
        the run that it belongs to. What it refuses again is set aside, as is what it refuses of
        the same kind and run later. Raises `Away`.
        """
        try:
            self._send(lot)
        except Refused:
            for record in lot:
                try:
                    if not self._send([record]):
                        return
                except Refused as error:
                    about = record.body.get("run"), record.kind
                    if about not in self._sent_again and self._spool.send_again():
                        self._sent_again.add(about)
                        self._tracker = None
                        return
                    self._spool.refuse(record, str(error))

    def _send(self, lot: Sequence[Record]) -> bool:
        """Whether the lot was sent; False if what was kept has to be sent again before."""
        if self._tracker is None or self._tracker.replaced():
            if self._tracker is not None and self._spool.send_again():
                self._tracker = None
                return False
            self._tracker = Tracker(self._tracking, self._name)
        self._tracker.apply(lot, self._spool.files)
        if self._tracker.replaced():
            raise Away("the database was replaced while it was written to")
        self._spool.stored(lot)
        return True

    def lost(self, trials: Iterable[str]) -> list[str]:
        """Those of the trials, which finished, that neither the store nor the disk has.

        None where the store cannot be asked.
        """
        waiting = self._spool.ended()  # before, since they may be sent meanwhile
        try:
            kept = waiting | Tracker(self._tracking, self._name).finished().keys()
        except (Away, Refused, Invalid):
            return []
        return [trial for trial in trials if trial not in kept]
