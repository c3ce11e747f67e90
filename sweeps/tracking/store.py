"""The tracking store: its location, and the meaning of its errors. Does not import MLflow."""

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

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.locks import lock
from masksweep.sweeps.common.redact import redact

SQLITE = "sqlite:///"
RUN_ID = re.compile(r"[0-9a-f]{32}")
"""Form of MLflow's run ids."""
REPRODUCTION_PREFIX = "reproduces "
"""Prefix of the names of the sweeps that `reproduce` creates."""
FINAL_ERROR_CODES = {
    # MLflow's codes of errors that the same request would cause again
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "NOT_FOUND",
}
RETRYABLE_STATUS_CODES = {401, 403, 408, 425, 429}
"""HTTP status codes of requests that may succeed after credentials or the server's load have
changed."""
PROGRAM_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NameError, NotImplementedError,
    TypeError, ValueError,
)  # fmt: skip
"""Exceptions that mean an error in a program, not a store that is away. A retry would fail
again."""


class StoreUnavailable(Exception):
    """The store cannot be reached, or cannot answer at present."""


class StoreRefused(Exception):
    """The store answers, but does not accept the request."""


def store_uri(configured: str | None) -> str:
    """Returns the URI of the tracking store.

    A path of a SQLite database is made absolute, because MLflow resolves a relative path again in
    each process.

    Args:
        configured: As `tracking.uri`; None means MLFLOW_TRACKING_URI, or `mlflow.db` in the current
            folder.

    Raises:
        Invalid: The path of the current folder cannot be a part of a database's address.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith(SQLITE) and not uri.removeprefix(SQLITE).startswith("/"):
        if "?" in str(Path.cwd()):
            allowed = "must have no ? in its path, where a database's address ends for MLflow"
            raise Invalid("current folder", Path.cwd(), f"{allowed}; or give tracking.uri")
        uri = f"{SQLITE}{Path(uri.removeprefix(SQLITE)).absolute()}"
    return uri


def is_local(uri: str) -> bool:
    """Whether the store is a database that is opened directly, not a server."""
    return not uri.startswith(("http://", "https://", "databricks"))


def database_path(uri: str) -> Path | None:
    """Returns the path of a store that is a SQLite database; None for other stores."""
    path = uri.removeprefix(SQLITE).partition("?")[0]
    return Path(path) if uri.startswith(SQLITE) else None


def may_have_content(uri: str) -> bool:
    """Whether the store may have content; False only for a SQLite database without a file."""
    path = database_path(uri)
    return path is None or path.exists()


def require_database(uri: str) -> None:
    """Checks that the file of a SQLite database, if it exists, is a database.

    MLflow would retry for minutes to open another file.

    Raises:
        Invalid: The file is not a database, or cannot be read.
    """
    path = database_path(uri)
    if path is None or not path.exists():
        return
    try:
        # an empty file is valid: another process may be about to write the database
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        reason = "is a folder" if path.is_dir() else f"is no database: {error}"
        if "locked" not in str(error):
            raise Invalid("tracking.uri", redact(uri), f"cannot be opened: {reason}") from error


def outdated_advice(message: str) -> str:
    """Returns what to do about a database that another version of MLflow made.

    Args:
        message: Message of the error that MLflow raised.

    Returns:
        Empty if the error has another cause.
    """
    match = re.search(r"out-of-date database schema \(found version (\w+)", message)
    if not match:
        return ""
    package = find_spec("mlflow")
    migrations = (
        Path(package.origin or "").parent / "store/db_migrations/versions" if package else Path()
    )
    if any(migrations.glob(f"{match[1]}_*.py")):
        return "an older MLflow made it; back it up, then: mlflow db upgrade URI"
    return f"a newer MLflow than {version('mlflow')} made it; upgrade MLflow, or give another store"


@contextmanager
def translate_errors() -> Iterator[None]:
    """Converts MLflow's errors to `StoreUnavailable` or `StoreRefused`."""
    try:
        yield
    except (StoreUnavailable, StoreRefused, Invalid):
        raise
    except Exception as error:
        message = redact((str(error).strip().splitlines() or [repr(error)])[0])
        if isinstance(error, PROGRAM_ERRORS):
            message = f"{type(error).__name__}: {message}"
        raise (StoreUnavailable if is_unavailable(error) else StoreRefused)(message) from error


def is_unavailable(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    # errors of HTTP libraries and JSON parsers may be a ValueError too, due to a proxy's page
    if isinstance(error, PROGRAM_ERRORS) and not isinstance(error, OSError | json.JSONDecodeError):
        return False
    # the upload of artifacts raises the HTTP library's own errors, which have a response
    status_code = getattr(getattr(error, "response", None), "status_code", 500)
    if 400 <= status_code < 500:
        return status_code in RETRYABLE_STATUS_CODES
    return getattr(error, "error_code", "INTERNAL_ERROR") not in FINAL_ERROR_CODES


def http_status(error: Exception) -> int:
    """Returns the HTTP status of an error. If it is below 500, the store has answered."""
    get_status = getattr(error, "get_http_status_code", None)
    return int(get_status()) if get_status else 500


def creation_lock(uri: str) -> AbstractContextManager[Any]:
    """Returns a lock for a SQLite database: only one process at a time may create it.

    For other stores, the returned context manager does nothing.
    """
    return lock(uri) if uri.startswith(SQLITE) else nullcontext()
