"""The tracking store: where it is, and what its errors mean. Loads no MLflow."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.locks import lock
from masksweep.sweeps.common.redact import shown

SQLITE = "sqlite:///"
RUN_ID = re.compile(r"[0-9a-f]{32}")
AGAIN = "reproduces "
"""How the names of the sweeps begin that `reproduce` makes."""
FINAL = {
    # what MLflow says of a request that would fail again in the same way
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "NOT_FOUND",
}
LATER = {401, 403, 408, 425, 429}
"""Answers of HTTP that may be others once credentials or load have changed."""
BUGS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NameError, NotImplementedError,
    TypeError, ValueError,
)  # fmt: skip
"""What a fault in a program raises, not a store that is away: it would be raised again."""


class Away(Exception):
    """The store cannot be reached, or cannot answer now."""


class Refused(Exception):
    """The store answers, and will not take this."""


def store_uri(given: str | None) -> str:
    """The tracking store: as given, MLFLOW_TRACKING_URI, or `mlflow.db` in the current folder.

    Absolute, because MLflow resolves a relative SQLite path anew in each process.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith(SQLITE) and not uri.removeprefix(SQLITE).startswith("/"):
        uri = f"{SQLITE}{Path(uri.removeprefix(SQLITE)).absolute()}"
    return uri


def is_local(uri: str) -> bool:
    """Whether the store is a database, not a server."""
    return not uri.startswith(("http://", "https://", "databricks"))


def database(uri: str) -> Path | None:
    """The file of a store that is a SQLite database."""
    path = uri.removeprefix(SQLITE).partition("?")[0]
    return Path(path) if uri.startswith(SQLITE) else None


def exists(uri: str) -> bool:
    """Whether there may be something in the store: False for a SQLite file that is not there."""
    path = database(uri)
    return path is None or path.exists()


def require_database(uri: str) -> None:
    """Raise `Invalid` if a SQLite database is there and is none: MLflow would try for minutes."""
    path = database(uri)
    if path is None or not path.exists():
        return
    try:
        # also a file that somebody has just begun to write is empty
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        reason = "is a folder" if path.is_dir() else f"is no database: {error}"
        if "locked" not in str(error):
            raise Invalid("tracking.uri", shown(uri), f"cannot be opened: {reason}") from error


def outdated(said: str) -> str:
    """What to do about a database of another version of MLflow; empty if that is not the error."""
    found = re.search(r"out-of-date database schema \(found version (\w+)", said)
    if not found:
        return ""
    package = find_spec("mlflow")
    known = (
        Path(package.origin or "").parent / "store/db_migrations/versions" if package else Path()
    )
    if any(known.glob(f"{found[1]}_*.py")):
        return "an older MLflow made it; back it up, then: mlflow db upgrade URI"
    return f"a newer MLflow than {version('mlflow')} made it; upgrade MLflow, or give another store"


@contextmanager
def translated() -> Iterator[None]:
    """MLflow's errors as `Away` or `Refused`."""
    try:
        yield
    except (Away, Refused, Invalid):
        raise
    except Exception as error:
        said = shown((str(error).strip().splitlines() or [repr(error)])[0])
        if isinstance(error, BUGS):
            said = f"{type(error).__name__}: {said}"
        raise (Away if is_away(error) else Refused)(said) from error


def is_away(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    # what HTTP libraries and JSON parsers raise may be a ValueError as well: a proxy's page, say
    if isinstance(error, BUGS) and not isinstance(error, OSError | json.JSONDecodeError):
        return False
    # what uploads artifacts raises the HTTP library's own errors
    answered = getattr(getattr(error, "response", None), "status_code", 500)
    if 400 <= answered < 500:
        return answered in LATER
    return getattr(error, "error_code", "INTERNAL_ERROR") not in FINAL


def status(error: Exception) -> int:
    """The HTTP status that stands for it: below 500 the store answered."""
    asked = getattr(error, "get_http_status_code", None)
    return int(asked()) if asked else 500


def alone(uri: str) -> AbstractContextManager[Any]:
    """A lock for a SQLite file: of processes that meet a new one, MLflow lets one make it."""
    return lock(uri) if uri.startswith(SQLITE) else nullcontext()
