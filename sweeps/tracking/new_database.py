"""Creates MLflow's SQLite database completely or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from masksweep.sweeps.tracking.client import client_class
from masksweep.sweeps.tracking.store import SQLITE


def create_database(path: Path) -> None:
    """Creates MLflow's database, unless the file exists and is not empty.

    MLflow creates its tables one after another, in several transactions. If the process is killed
    meanwhile, MLflow cannot open the database again: a table "already exists". So the database is
    created in a folder beside its final path, and moved there when it is complete.

    The caller holds the lock of the store.

    Args:
        path: Path of the database.

    Raises:
        OSError: The folder of the database cannot be written.
        Exception: MLflow cannot create the database.
    """
    path = path.resolve()  # the file may be a link
    if _has_content(path):
        return
    folder = path.with_name(f".{path.name}.new")
    shutil.rmtree(folder, ignore_errors=True)  # a killed process may have left it
    folder.mkdir(parents=True)
    try:
        new = folder / path.name
        client_class()(tracking_uri=f"{SQLITE}{new}").search_experiments(max_results=1)
        if not _has_content(path):  # a server that knows no lock may have created it meanwhile
            new.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
