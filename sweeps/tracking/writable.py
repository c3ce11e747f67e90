"""Checks that a sweep's files can be written, before `run` starts and in `doctor`."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.limits import STATE_FOLDER
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.tracking.store import database_path, is_local, require_database, store_uri

PROBE_BYTES = 2**20
"""Free disk space that a sweep needs at its start, in bytes."""


def require_state() -> None:
    """Checks that the spool and the logs can be written in the current folder.

    Raises:
        Invalid: One of their folders cannot be written.
    """
    for part in (".", STATE_FOLDER / "spool", STATE_FOLDER / "logs"):
        _require_folder("folder", Path(part).absolute())


def require_store(uri: str | None) -> None:
    """Checks that a SQLite database can be written, or created if it does not exist.

    Args:
        uri: As `tracking.uri`. Stores of other kinds are not checked.

    Raises:
        Invalid: The database or its folder cannot be written.
    """
    uri = store_uri(uri)
    path = database_path(uri)
    if path is None:
        return
    require_database(uri)
    _require_folder("tracking.uri", path.parent, uri)
    if path.exists():
        _require_writable(path, uri)
    elif is_local(uri):
        _require_folder("folder", Path("mlartifacts").absolute())


def _require_folder(key: str, folder: Path, value: str = "") -> None:
    """Checks that the folder, or the nearest parent that exists, can be written."""
    try:
        existing = folder
        while not existing.exists():
            existing = existing.parent
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        allowed = f"cannot be written: {error.strerror}"
        raise Invalid(key, redact(value) or folder, allowed) from error


def _require_writable(path: Path, uri: str) -> None:
    """Checks that a database can be locked for writing."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)) as db:
            db.execute("BEGIN IMMEDIATE")
            db.rollback()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):  # another process writes to it now
            raise Invalid("tracking.uri", redact(uri), f"cannot be written: {error}") from error
