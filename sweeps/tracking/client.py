"""MLflow's client: how it is created, and searches that return all pages."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.tracking.store import (
    SQLITE,
    StoreUnavailable,
    creation_lock,
    database_path,
    http_status,
    outdated_advice,
    require_database,
)

FileId = tuple[int, int] | None
"""Device and inode of a file."""
PAGE_RUNS = 1000
"""Number of runs in one page of a search."""
CLIENT_SETTINGS = {
    # the spool retries failed calls; if MLflow repeated a call, it could be applied twice
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # send artifacts through the server: this machine may not reach the server's object store
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}
"""Environment variables that configure MLflow's client."""

UNREADABLE = ("ArgumentError", "NoSuchModuleError")
"""SQLAlchemy's errors for an address that it cannot read."""


def client_class() -> Any:
    """Imports and returns MLflow's client class, configured, and without its log output."""
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    # MLflow's use of deprecated functions does not concern the user
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    return MlflowClient


_opened_files: dict[str, tuple[FileId, int]] = {}
"""By URI: the id of the database's file when it was last opened, and how often the file was
replaced."""


def file_id(uri: str) -> FileId:
    """Returns the id of a SQLite database's file.

    A process that has opened a database keeps writing to its file even after the file was deleted.
    The id shows whether the file was replaced.

    Args:
        uri: URI of the store.

    Returns:
        None for stores of another kind, and if the file is missing or empty.
    """
    path = database_path(uri)
    try:
        file_status = path.stat() if path else None
    except OSError:
        return None
    return (file_status.st_dev, file_status.st_ino) if file_status and file_status.st_size else None


def new_client(uri: str) -> Any:
    """Returns MLflow's client of a store, also for a database whose file was replaced.

    MLflow keeps the connections to a database for the life of the process, by its URI. So a new
    file is opened under another spelling of its path, with `/./`.
    """
    path, (before, count) = database_path(uri), _opened_files.get(uri, (None, 0))
    count += int(before is not None and before != file_id(uri))
    spelled = uri.replace(f"/{path.name}", f"{'/.' * count}/{path.name}") if path else uri
    client = client_class()(tracking_uri=spelled)
    _opened_files[uri] = file_id(uri), count
    return client


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """Guards the opening of a store: holds the store's lock and translates errors.

    Args:
        uri: URI of the store.

    Raises:
        StoreUnavailable: The store cannot be reached.
        Invalid: The store cannot be opened for another reason.
    """
    require_database(uri)
    try:
        with creation_lock(uri):
            yield
    except Exception as error:  # each kind of store raises its own errors
        if isinstance(error, Invalid):
            raise
        lines = redact(str(error)).strip().splitlines() or [repr(error)]
        # an address of no known form, or of a database whose driver is not installed
        is_unusable = isinstance(error, ImportError) or type(error).__name__ in UNREADABLE
        if not uri.startswith(SQLITE) and http_status(error) >= 500 and not is_unusable:
            raise StoreUnavailable(lines[0]) from error
        reason = outdated_advice(lines[0]) or lines[0]
        raise Invalid("tracking.uri", redact(uri), f"cannot be opened: {reason}") from error


def search(client: Any, experiments: Sequence[str], query: str) -> list[Any]:
    """Returns all runs of the experiments that match a query, the newest first.

    Args:
        client: MLflow's client.
        experiments: Ids of experiments.
        query: A filter in MLflow's search syntax.
    """
    runs: list[Any] = []
    token = None
    while experiments:
        page = client.search_runs(list(experiments), query, max_results=PAGE_RUNS, page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    return runs
