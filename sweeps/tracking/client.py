"""MLflow's client: how it is opened, and all that a query finds."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.redact import shown
from masksweep.sweeps.tracking.store import (
    SQLITE,
    Away,
    alone,
    database,
    outdated,
    require_database,
    status,
)

FileId = tuple[int, int] | None
PAGE = 1000
CLIENT = {
    # the spool waits and tries again; a call that is sent twice by MLflow could count twice
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # only the server need reach the object store that is behind it
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}


def client_class() -> Any:
    """MLflow's client, imported without its noise and with the house's patience."""
    for name, value in CLIENT.items():
        os.environ.setdefault(name, value)
    # MLflow's own use of deprecated calls is no concern of the person who runs a sweep
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    return MlflowClient


_known: dict[str, tuple[FileId, int]] = {}
"""By URI: the database's file when it was opened last, and how many it has been before."""


def file_id(uri: str) -> FileId:
    """Which file a SQLite database is; None for other stores, and one that is not there, or empty.

    A process that has opened a database goes on writing to its file after that was deleted.
    """
    path = database(uri)
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found and found.st_size else None


def new_client(uri: str) -> Any:
    """MLflow's client of a store, also of a database whose file was replaced.

    MLflow keeps the connections to a database by its URI for the life of a process. So a new file
    is opened by another spelling of its path, with `/./`.
    """
    path, (before, count) = database(uri), _known.get(uri, (None, 0))
    count += int(before is not None and before != file_id(uri))
    spelled = uri.replace(f"/{path.name}", f"{'/.' * count}/{path.name}") if path else uri
    client = client_class()(tracking_uri=spelled)
    _known[uri] = file_id(uri), count
    return client


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """Alone with the store; what fails as `Away` if it is not there, `Invalid` otherwise."""
    require_database(uri)
    try:
        with alone(uri):
            yield
    except Exception as error:  # each kind of store has errors of its own
        if isinstance(error, Invalid):
            raise
        said = shown(str(error)).strip().splitlines() or [repr(error)]
        if not uri.startswith(SQLITE) and status(error) >= 500:
            raise Away(said[0]) from error
        reason = outdated(said[0]) or said[0]
        raise Invalid("tracking.uri", shown(uri), f"cannot be opened: {reason}") from error


def search(client: Any, experiments: Sequence[str], query: str) -> list[Any]:
    """All runs of experiments that a query finds, the newest first."""
    found: list[Any] = []
    token = None
    while experiments:
        page = client.search_runs(list(experiments), query, max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    return found
