"""The spool: records in a file on disk that wait until the tracking store has them."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.limits import STATE_FOLDER
from masksweep.sweeps.common.locks import lock
from masksweep.sweeps.common.seeding import short_digest
from masksweep.sweeps.common.sweep_failed import SweepFailed

SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, body TEXT NOT NULL, refused TEXT,
    run TEXT, sent INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS file (
    record INTEGER NOT NULL, name TEXT NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (record, name));
CREATE TABLE IF NOT EXISTS sweep (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Record:
    """One event of a sweep; ids increase in the order of the events."""

    id: int
    kind: str
    """`sweep`, `trial`, `metrics`, `end` (of a trial) or `close` (of the sweep)."""
    body: Mapping[str, Any]


@dataclass(frozen=True)
class SpoolAddress:
    """Identifies the sweep and the store of a spool. Has no secrets."""

    store: str
    """The store's URI without passwords and tokens."""
    experiment: str
    sweep: str

    @property
    def path(self) -> Path:
        """Path of the spool's file, in the current folder."""
        text = json.dumps([self.store, self.experiment, self.sweep])
        return STATE_FOLDER / "spool" / f"{short_digest(text)}.db"


ADDED_COLUMNS = {"run": "TEXT", "sent": "INTEGER NOT NULL DEFAULT 0"}
"""Columns that the spool of an earlier version may lack, with their SQL types."""


class Spool:
    """A journal of records in a SQLite file, which survives the end of the process.

    The records of a trial are kept until the store has the trial's end, and the records of the
    sweep itself until the sweep is closed. So if the store loses the first records of a run, they
    are sent again.

    Only one process at a time may open a spool, with `open_exclusively`. Several threads may call
    its methods.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, timeout=30)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(SCHEMA)
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(record)")}
        for column, kind in ADDED_COLUMNS.items():
            if column not in columns:
                self._db.execute(f"ALTER TABLE record ADD COLUMN {column} {kind}")
        self.put_signal = threading.Event()

    @classmethod
    @contextmanager
    def open_exclusively(cls, address: SpoolAddress) -> Iterator[Self]:
        """Opens the sweep's spool for this process alone; a context manager.

        If the spool has no unsent records at the end, its file is removed.

        Raises:
            Invalid: Another process runs the same sweep, or the file cannot be read.
        """
        from filelock import Timeout

        path = address.path
        sweep_lock = lock(str(path.absolute()))
        try:
            sweep_lock.acquire(timeout=0)
        except Timeout:
            allowed = "is being run by another process here; wait, or give another sweep.name"
            raise Invalid("sweep.name", address.sweep, allowed) from None
        try:
            with _folders(), _readable(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                spool = cls(path)
            try:
                spool._describe(address)
                yield spool
            finally:
                spool.close()
        finally:
            sweep_lock.release()

    @staticmethod
    def addresses() -> list[SpoolAddress]:
        """Returns the addresses of all spools in the current folder."""
        addresses = []
        for path in sorted((STATE_FOLDER / "spool").glob("*.db")):
            with _readable(path), closing(_read_only(path)) as db:
                fields = dict(db.execute("SELECT key, value FROM sweep"))
            if fields.keys() == {"store", "experiment", "sweep"}:
                addresses.append(SpoolAddress(**fields))
        return addresses

    def _describe(self, address: SpoolAddress) -> None:
        """Stores the address in the spool's file."""
        with self._lock, self._db:
            self._db.executemany("REPLACE INTO sweep VALUES (?, ?)", vars(address).items())

    def put(
        self, kind: str, body: Mapping[str, Any], files: Mapping[str, bytes] | None = None
    ) -> None:
        """Adds a record; the record is on disk when this returns.

        Args:
            kind: Kind of the record.
            body: Content of the record, as plain data.
            files: Content of the record's files, by name.

        Raises:
            SweepFailed: The record cannot be written. Earlier records are kept.
        """
        with self._lock, self._transaction():
            values = kind, json.dumps(body), body.get("run")
            added = self._db.execute(
                "INSERT INTO record (kind, body, run) VALUES (?, ?, ?)", values
            )
            rows = [(added.lastrowid, name, content) for name, content in (files or {}).items()]
            self._db.executemany("INSERT INTO file VALUES (?, ?, ?)", rows)
        self.put_signal.set()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A transaction; a failure is raised as `SweepFailed`."""
        try:
            with self._db:
                yield
        except sqlite3.Error as error:
            message = f"{self._path} cannot be written ({error}); make room on its disk"
            raise SweepFailed(message) from error

    def oldest(self, limit: int) -> list[Record]:
        """Returns the oldest records that are neither sent nor refused.

        Args:
            limit: Largest number of records.
        """
        query = (
            "SELECT id, kind, body FROM record WHERE refused IS NULL AND NOT sent"
            " ORDER BY id LIMIT ?"
        )
        with self._lock:
            rows = self._db.execute(query, (limit,)).fetchall()
        return [Record(number, kind, json.loads(body)) for number, kind, body in rows]

    def files(self, record: Record) -> dict[str, bytes]:
        """Returns the content of a record's files, by name."""
        with self._lock:
            query = "SELECT name, content FROM file WHERE record = ?"
            return dict(self._db.execute(query, (record.id,)).fetchall())

    def mark_sent(self, records: Sequence[Record]) -> None:
        """Marks records as sent, and removes the records that no other record needs."""
        sent, ends = [(r.id,) for r in records], []
        finished: dict[str, str] = {}
        for record in records:
            if record.kind == "end":
                ends.append((record.id, record.body["run"]))
                if record.body["status"] == "FINISHED":
                    finished[record.body["trial"]] = record.body["run"]
        closed = any(r.kind == "close" for r in records)
        with self._lock, self._db:
            self._db.executemany("UPDATE record SET sent = 1 WHERE id = ?", sent)
            self._db.executemany("DELETE FROM record WHERE sent AND (id = ? OR run = ?)", ends)
            if closed:
                self._db.execute("DELETE FROM record WHERE sent")
            if finished or closed:
                self._drop_refused(finished, closed)
            self._db.execute("DELETE FROM file WHERE record NOT IN (SELECT id FROM record)")

    def _drop_refused(self, finished: Mapping[str, str], closed: bool) -> None:
        """Removes refused records that newer records have replaced.

        These are records of other runs of a finished trial, and the sweep's own records if it was
        closed. Refused records of the finished run itself are kept: the store does not have their
        content.

        Args:
            finished: Key of the finished run by trial id.
            closed: Whether the sweep was closed.
        """
        rows = self._db.execute("SELECT id, kind, body FROM record WHERE refused IS NOT NULL")
        for number, kind, text in rows.fetchall():
            body = json.loads(text)
            trial = body.get("trial") or body.get("tags", {}).get("trial.id")
            replaced = finished.get(trial, body.get("run")) != body.get("run")
            if replaced or (closed and kind in ("sweep", "close")):
                self._db.execute("DELETE FROM record WHERE id = ?", (number,))

    def send_again(self) -> bool:
        """Marks the kept records as not sent; returns whether there were any."""
        with self._lock, self._db:
            return self._db.execute("UPDATE record SET sent = 0 WHERE sent").rowcount > 0

    def forget_sent(self) -> None:
        """Removes the sent records that were kept, because their runs get no more records."""
        with self._lock, self._db:
            self._db.execute("DELETE FROM record WHERE sent")

    def refuse(self, record: Record, reason: str) -> None:
        """Marks a record as refused by the store; the record is kept."""
        with self._lock, self._db:
            self._db.execute("UPDATE record SET refused = ? WHERE id = ?", (reason, record.id))

    def retry_refused(self) -> None:
        """Marks the refused records as not refused, so that they are sent again."""
        with self._lock, self._db:
            self._db.execute("UPDATE record SET refused = NULL")

    def waiting(self) -> int:
        """Returns the number of records that the store does not have yet."""
        with self._lock:
            query = "SELECT COUNT(*) FROM record WHERE NOT sent"
            return int(self._db.execute(query).fetchone()[0])

    def ended(self) -> set[str]:
        """Returns the ids of the trials whose end is in the spool, also if the store refused it."""
        with self._lock:
            rows = self._db.execute("SELECT body FROM record WHERE kind = 'end'").fetchall()
        return {json.loads(body)["trial"] for (body,) in rows}

    def finished(self) -> dict[str, dict[str, Any]]:
        """Returns the bodies of the records that end a trial as finished, by trial id.

        Refused records are left out.
        """
        with self._lock:
            return _finished(self._db)

    @staticmethod
    def read_finished(address: SpoolAddress) -> dict[str, dict[str, Any]]:
        """Returns `finished` of a spool that another process may have opened."""
        with _readable(address.path), closing(_read_only(address.path)) as db:
            return _finished(db)

    def refused(self) -> list[str]:
        """Returns the distinct reasons why records were refused."""
        query = "SELECT DISTINCT refused FROM record WHERE refused IS NOT NULL"
        with self._lock:
            return [reason for (reason,) in self._db.execute(query)]

    def close(self) -> None:
        """Closes the file, and removes it if no records wait."""
        empty = not self.waiting()
        with self._lock:
            self._db.close()
        if empty:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            with _folders():
                for folder in (self._path.parent, STATE_FOLDER):
                    with suppress(OSError):  # not empty
                        folder.rmdir()


def _folders() -> AbstractContextManager[Any]:
    """Returns a lock on the folders: one process may remove them while another adds a spool."""
    return lock(f"{STATE_FOLDER.absolute()} folders")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Converts SQLite's errors to `Invalid`."""
    try:
        yield
    except sqlite3.Error as error:
        allowed = f"cannot be read: {error}; if it is damaged, move it away"
        raise Invalid("spool", path, allowed) from error


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)


def _finished(db: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    query = "SELECT body FROM record WHERE kind = 'end' AND refused IS NULL"
    bodies = [json.loads(body) for (body,) in db.execute(query)]
    return {b["trial"]: b for b in bodies if b["status"] == "FINISHED"}
