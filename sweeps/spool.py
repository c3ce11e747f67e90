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

from strategies.base import Invalid
from sweeps.locks import lock
from sweeps.seeds import short_digest

STATE = Path(".masksweep")
"""Spool, logs and checkpoints of the sweeps that were started in this folder."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, body TEXT NOT NULL, refused TEXT);
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


class Spool:
    """A journal in a SQLite file: what is put there is there, whatever happens to the process.

    One process at a time: `held` is the way to open one. Its methods may be called by several
    threads.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, timeout=30)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(SCHEMA)
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
            with _folders():
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
            with closing(_read_only(path)) as db:
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
        """Add a record, with files by name; it is on disk when this returns."""
        with self._lock, self._db:
            text = json.dumps(body)
            added = self._db.execute("INSERT INTO record (kind, body) VALUES (?, ?)", (kind, text))
            rows = [(added.lastrowid, name, content) for name, content in (files or {}).items()]
            self._db.executemany("INSERT INTO file VALUES (?, ?, ?)", rows)
        self.put_signal.set()

    def oldest(self, limit: int) -> list[Record]:
        """The records that were put first, but for those that the store refused."""
        query = "SELECT id, kind, body FROM record WHERE refused IS NULL ORDER BY id LIMIT ?"
        with self._lock:
            rows = self._db.execute(query, (limit,)).fetchall()
        return [Record(number, kind, json.loads(body)) for number, kind, body in rows]

    def files(self, record: Record) -> dict[str, bytes]:
        """A record's files."""
        with self._lock:
            query = "SELECT name, content FROM file WHERE record = ?"
            return dict(self._db.execute(query, (record.id,)).fetchall())

    def remove(self, records: Sequence[Record]) -> None:
        """Drop records that the store has."""
        numbers = [(r.id,) for r in records]
        with self._lock, self._db:
            self._db.executemany("DELETE FROM file WHERE record = ?", numbers)
            self._db.executemany("DELETE FROM record WHERE id = ?", numbers)

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
            return int(self._db.execute("SELECT COUNT(*) FROM record").fetchone()[0])

    def finished(self) -> dict[str, dict[str, Any]]:
        """Bodies of the records that end a trial well, by trial id."""
        with self._lock:
            return _finished(self._db)

    @staticmethod
    def peek(address: Address) -> dict[str, dict[str, Any]]:
        """`finished` of a spool that another process may hold."""
        with closing(_read_only(address.path)) as db:
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


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)


def _finished(db: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    bodies = [json.loads(b) for (b,) in db.execute("SELECT body FROM record WHERE kind = 'end'")]
    return {b["trial"]: b for b in bodies if b["status"] == "FINISHED"}
