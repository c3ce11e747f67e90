"""Whether a sweep's files can be written, asked before anything starts, by `run` and `doctor`."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.limits import STATE
from masksweep.sweeps.common.redact import shown
from masksweep.sweeps.tracking.store import database, is_local, require_database, store_uri

PROBE_BYTES = 2**20
"""What must fit on the disk for a sweep to begin."""


def require_state() -> None:
    """Raise `Invalid` unless spool and logs can be written in the current folder."""
    for part in (".", STATE / "spool", STATE / "logs"):
        _require_folder("folder", Path(part).absolute())


def require_store(uri: str | None) -> None:
    """Raise `Invalid` unless a store that is a SQLite database can be written, or made.

    Args:
        uri: As `tracking.uri`. Other stores are not looked at.
    """
    uri = store_uri(uri)
    path = database(uri)
    if path is None:
        return
    require_database(uri)
    _require_folder("tracking.uri", path.parent, uri)
    if path.exists():
        _require_writable(path, uri)
    elif is_local(uri):
        _require_folder("folder", Path("mlartifacts").absolute())


def _require_folder(key: str, folder: Path, value: str = "") -> None:
    """Raise `Invalid` unless files can be written in the folder, or in one that it is made in."""
    try:
        there = folder
        while not there.exists():
            there = there.parent
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        allowed = f"cannot be written: {error.strerror}"
        raise Invalid(key, shown(value) or folder, allowed) from error


def _require_writable(path: Path, uri: str) -> None:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)) as db:
            db.execute("BEGIN IMMEDIATE")
            db.rollback()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):  # another process writes to it now
            raise Invalid("tracking.uri", shown(uri), f"cannot be written: {error}") from error
