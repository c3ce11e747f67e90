"""Records that wait on disk until the tracking store has them."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.broken import Broken
from masksweep.sweeps.common.limits import STATE
from masksweep.sweeps.common.locks import lock
from masksweep.sweeps.common.seeding import short_digest

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
    """One thing that happened, in order."""

    id: int
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Address:
    """Which sweep of which store a spool is for. Holds no secret."""

    store: str
    """The store's URI as it may be shown."""
    experiment: str
    sweep: str

    @property
    def path(self) -> Path:
        """The spool's file, in the current folder."""
        text = json.dumps([self.store, self.experiment, self.sweep])
        return STATE / "spool" / f"{short_digest(text)}.db"


NEWER = {"run": "TEXT", "sent": "INTEGER NOT NULL DEFAULT 0"}
"""Columns that the spool of an earlier version may lack."""


class Spool:
    """A journal in a SQLite file: what is put there is there, whatever happens to the process.

    The records of a trial are kept until the store has its end, and the sweep's own until it is
    closed: a store that lost the beginning of a run is sent it again.

    One process at a time: `held` is the way to open one. Its methods may be called by several
    threads.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, timeout=30)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(SCHEMA)
        there = {row[1] for row in self._db.execute("PRAGMA table_info(record)")}
        for column, kind in NEWER.items():
            if column not in there:
                self._db.execute(f"ALTER TABLE record ADD COLUMN {column} {kind}")
        self.put_signal = threading.Event()

    @classmethod
    @contextmanager
    def held(cls, address: Address) -> Iterator[Self]:
        """The sweep's spool, for this process alone. An empty one is removed at the end.

        Raises `Invalid` if another process runs the same sweep.
        """
        from filelock import Timeout

        path = address.path
        alone = lock(str(path.absolute()))
        try:
            alone.acquire(timeout=0)
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
            alone.release()

    @staticmethod
    def all() -> list[Address]:
        """The spools of this folder."""
        found = []
        for path in sorted((STATE / "spool").glob("*.db")):
            with _readable(path), closing(_read_only(path)) as db:
                told = dict(db.execute("SELECT key, value FROM sweep"))
            if told.keys() == {"store", "experiment", "sweep"}:
                found.append(Address(**told))
        return found

    def _describe(self, address: Address) -> None:
        with self._lock, self._db:
            self._db.executemany("REPLACE INTO sweep VALUES (?, ?)", vars(address).items())

    def put(
        self, kind: str, body: Mapping[str, Any], files: Mapping[str, bytes] | None = None
    ) -> None:
        """Add a record, with files by name; it is on disk when this returns.

        Raises:
            Broken: It cannot be written; what was put before is kept.
        """
        with self._lock, self._written():
            values = kind, json.dumps(body), body.get("run")
            added = self._db.execute(
                "INSERT INTO record (kind, body, run) VALUES (?, ?, ?)", values
            )
            rows = [(added.lastrowid, name, content) for name, content in (files or {}).items()]
            self._db.executemany("INSERT INTO file VALUES (?, ?, ?)", rows)
        self.put_signal.set()

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            with self._db:
                yield
        except sqlite3.Error as error:
            said = f"{self._path} cannot be written ({error}); make room on its disk"
            raise Broken(said) from error

    def oldest(self, limit: int) -> list[Record]:
        """The records to be sent first: not yet sent, and not refused."""
        query = (
            "SELECT id, kind, body FROM record WHERE refused IS NULL AND NOT sent"
            " ORDER BY id LIMIT ?"
        )
        with self._lock:
            rows = self._db.execute(query, (limit,)).fetchall()
        return [Record(number, kind, json.loads(body)) for number, kind, body in rows]

    def files(self, record: Record) -> dict[str, bytes]:
        """A record's files."""
        with self._lock:
            query = "SELECT name, content FROM file WHERE record = ?"
            return dict(self._db.execute(query, (record.id,)).fetchall())

    def stored(self, records: Sequence[Record]) -> None:
        """The store has these records. Those that no other record needs any more are removed."""
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
        """Remove refused records that newer ones have replaced.

        These are records of other runs of trials that have finished, in a run that the mapping
        names, and the sweep's own where it was closed. What was refused of a finished run itself
        is kept: it was measured, and is nowhere else.
        """
        rows = self._db.execute("SELECT id, kind, body FROM record WHERE refused IS NOT NULL")
        for number, kind, text in rows.fetchall():
            body = json.loads(text)
            trial = body.get("trial") or body.get("tags", {}).get("trial.id")
            replaced = finished.get(trial, body.get("run")) != body.get("run")
            if replaced or (closed and kind in ("sweep", "close")):
                self._db.execute("DELETE FROM record WHERE id = ?", (number,))

    def send_again(self) -> bool:
        """Have the kept records sent once more; whether there are any."""
        with self._lock, self._db:
            return self._db.execute("UPDATE record SET sent = 0 WHERE sent").rowcount > 0

    def forget_sent(self) -> None:
        """Remove kept records: their runs have no more records to come."""
        with self._lock, self._db:
            self._db.execute("DELETE FROM record WHERE sent")

    def refuse(self, record: Record, reason: str) -> None:
        """Set a record aside that the store will not take; it is kept."""
        with self._lock, self._db:
            self._db.execute("UPDATE record SET refused = ? WHERE id = ?", (reason, record.id))

    def retry_refused(self) -> None:
        """Have the refused records sent again."""
        with self._lock, self._db:
            self._db.execute("UPDATE record SET refused = NULL")

    def waiting(self) -> int:
        """How many records the store does not have yet."""
        with self._lock:
            query = "SELECT COUNT(*) FROM record WHERE NOT sent"
            return int(self._db.execute(query).fetchone()[0])

    def ended(self) -> set[str]:
        """Ids of the trials whose end the store does not have yet, or refused."""
        with self._lock:
            rows = self._db.execute("SELECT body FROM record WHERE kind = 'end'").fetchall()
        return {json.loads(body)["trial"] for (body,) in rows}

    def finished(self) -> dict[str, dict[str, Any]]:
        """Bodies of the records that end a trial well, by trial id; without refused ones."""
        with self._lock:
            return _finished(self._db)

    @staticmethod
    def peek(address: Address) -> dict[str, dict[str, Any]]:
        """`finished` of a spool that another process may hold."""
        with _readable(address.path), closing(_read_only(address.path)) as db:
            return _finished(db)

    def refused(self) -> list[str]:
        """Why records were refused."""
        query = "SELECT DISTINCT refused FROM record WHERE refused IS NOT NULL"
        with self._lock:
            return [reason for (reason,) in self._db.execute(query)]

    def close(self) -> None:
        empty = not self.waiting()
        with self._lock:
            self._db.close()
        if empty:
            for end in ("", "-wal", "-shm"):
                Path(f"{self._path}{end}").unlink(missing_ok=True)
            with _folders():
                for folder in (self._path.parent, STATE):
                    with suppress(OSError):  # not empty
                        folder.rmdir()


def _folders() -> AbstractContextManager[Any]:
    """A lock: another sweep may be about to put its spool into the folder that is removed."""
    return lock(f"{STATE.absolute()} folders")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
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
