"""A SQLite database is created completely or not at all."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.tracking.experiment import Experiment
from tests.support.sweep_process import wait_for

OPEN_STORE = """
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.tracking.experiment import Experiment
Experiment(Tracking())
"""


def number_of_tables(folder: Path) -> int:
    """Returns how many tables the database in the folder, or in a folder in it, has so far."""
    for path in folder.rglob("mlflow.db"):
        address = f"file:{path}?mode=ro"
        with (
            suppress(sqlite3.OperationalError),  # it is locked while a table is created
            closing(sqlite3.connect(address, uri=True)) as database,
        ):
            query = "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
            return int(database.execute(query).fetchone()[0])
    return 0


@pytest.mark.parametrize("tables", [10, 30])
def test_a_killed_process_leaves_no_half_of_one(
    tables: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = subprocess.Popen([sys.executable, "-c", OPEN_STORE], cwd=tmp_path)
    try:
        wait_for(lambda: number_of_tables(tmp_path) >= tables, 60)
    finally:
        process.kill()
        process.wait()
    monkeypatch.chdir(tmp_path)
    Experiment(Tracking()).check_writable()
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
