"""Sends the records of a spool to the tracking store, from a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.tracking.spool import Record, Spool
from masksweep.sweeps.tracking.store import StoreRefused, StoreUnavailable
from masksweep.sweeps.tracking.writer import Tracker

BATCH_RECORDS = 2000
"""Most records of one batch. A batch is deleted from the spool only after the store has accepted
all of it, so a batch must be small enough for a store that is up for a short time."""
BATCH_LARGE_RECORDS = 50
"""Most records of one batch that are not metrics. They may have files, so they take longer."""
METRICS_WAIT_SECONDS = 3.0
"""Seconds that metrics wait for more metrics, so that they go out in one call. A call costs the
store far more than a single value, and packed trials report all at once."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 8.0
"""Shortest and longest time between two attempts while the store is away, in seconds."""


class Sender:
    """Sends the records of a spool to its store, oldest first, until all are there.

    Args:
        spool: The sweep's spool, held by this process.
        tracking: The store and the experiment.
        name: Name of the sweep.
        tracker: The opened store; None if it is to be opened for the first record.
    """

    def __init__(
        self, spool: Spool, tracking: Tracking, name: str, tracker: Tracker | None = None
    ) -> None:
        self._spool, self._tracking, self._name, self._tracker = spool, tracking, name, tracker
        self._away_since: float | None = None
        self._sent_again: set[tuple[str | None, str]] = set()
        """Pairs (run, kind of record) whose refusal has already caused all kept records to be
        sent again."""
        self._stop, self._hurry = threading.Event(), threading.Event()
        self.trouble = ""
        """Why the last attempt to reach the store failed."""
        self._thread = threading.Thread(target=self._send_all, name="sender", daemon=True)

    def send_left(self) -> None:
        """Sends the records that an earlier process left.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        self._spool.retry_refused()
        while batch := self.oldest():
            self.send(batch)
        self._spool.forget_sent()

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
        wait = FIRST_WAIT_SECONDS
        while not self._stop.is_set():
            try:
                self._spool.put_signal.clear()
                batch = self.oldest()
                if not batch:
                    self._spool.put_signal.wait(1.0)
                    continue
                if self._waits_for_metrics(batch):
                    self._hurry.wait(0.2)
                    continue
                self.send(batch)
                wait, self._away_since = FIRST_WAIT_SECONDS, None
            except Exception as error:  # after any error the records are still in the spool
                self.trouble = str(error)
                self._away_since = self._away_since or time.monotonic()
                self._stop.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def oldest(self) -> list[Record]:
        """Returns the next batch of records to send."""
        records = self._spool.oldest(BATCH_RECORDS)
        large_positions = [n for n, record in enumerate(records) if record.kind != "metrics"]
        too_many = len(large_positions) > BATCH_LARGE_RECORDS
        return records[: large_positions[BATCH_LARGE_RECORDS]] if too_many else records

    def _waits_for_metrics(self, batch: Sequence[Record]) -> bool:
        """Whether to wait for more metrics.

        This is so if the batch has only a few metrics, which have not waited for
        `METRICS_WAIT_SECONDS` yet.
        """
        if self._hurry.is_set() or len(batch) == BATCH_RECORDS:
            return False
        if any(record.kind != "metrics" for record in batch):
            return False
        return bool(0 <= time.time() - batch[0].body["time"] / 1000 < METRICS_WAIT_SECONDS)

    def send(self, batch: Sequence[Record]) -> None:
        """Sends a batch of records.

        A record is deleted from the spool when no other record needs it. If the store refuses a
        record, all kept records are sent again first, because the store may have lost the run that
        the record belongs to. If the store refuses the record a second time, or another one of the
        same run and kind, the record is set aside.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        try:
            self._send(batch)
        except StoreRefused:
            for record in batch:
                try:
                    if not self._send([record]):
                        return
                except StoreRefused as error:
                    run_and_kind = record.body.get("run"), record.kind
                    if run_and_kind not in self._sent_again and self._spool.send_again():
                        self._sent_again.add(run_and_kind)
                        self._tracker = None
                        return
                    self._spool.refuse(record, str(error))

    def _send(self, batch: Sequence[Record]) -> bool:
        """Returns whether the batch was sent; if not, the kept records must be sent again first."""
        if self._tracker is None or self._tracker.is_database_replaced():
            if self._tracker is not None and self._spool.send_again():
                self._tracker = None
                return False
            self._tracker = Tracker(self._tracking, self._name)
        self._tracker.apply(batch, self._spool.files)
        if self._tracker.is_database_replaced():
            raise StoreUnavailable("the database was replaced while it was written to")
        self._spool.mark_sent(batch)
        return True

    def find_lost(self, trials: Iterable[str]) -> list[str]:
        """Returns the given trials whose end is neither in the store nor in the spool.

        Args:
            trials: Ids of trials that have finished.

        Returns:
            Ids of the lost trials; an empty list if the store cannot be asked.
        """
        waiting = self._spool.ended()  # first, since records may be sent in between
        try:
            recorded_ids = waiting | Tracker(self._tracking, self._name).finished().keys()
        except (StoreUnavailable, StoreRefused, Invalid):
            return []
        return [trial for trial in trials if trial not in recorded_ids]
