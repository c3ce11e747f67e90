"""A sweep in a process of its own, as a person runs it, that can be watched, hurt and killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient
from mlflow.entities import Run

from masksweep.sweeps.tracking.store import database

PATIENCE_S = 240.0


def clean_env(**more: str) -> dict[str, str]:
    """This process's environment without what belongs to the tests' own Hydra, MLflow and GPUs.

    And without the safe path that a command of this process has set for those that it starts.
    """
    ours = ("HYDRA_", "MLFLOW_", "RAY_", "CUDA_", "TF_", "PYTHONSAFEPATH")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | more


def wait_for(what: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait until it is so. Raises `TimeoutError` if it never is."""
    end = time.monotonic() + patience_s
    while not what():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)


@dataclass
class Driver:
    """`masksweep run` in a folder."""

    folder: Path
    process: subprocess.Popen[bytes]
    code: int | None = None

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def ended(self) -> list[str]:
        """The lines of the trials that ended so far."""
        return [line for line in self.stderr.splitlines() if line.startswith("[")]

    def wait_for(self, what: Callable[[], object]) -> None:
        """As `wait_for`, but also no longer than the process lives."""

        def found() -> object:
            return what() or self.process.poll() is not None

        wait_for(found)
        if not what():
            raise AssertionError(f"it ended before:\n{self.stdout}\n{self.stderr}")

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        self.code = self.process.wait(PATIENCE_S)
        return self.code

    @property
    def family(self) -> list[psutil.Process]:
        """All that descends from it now."""
        return psutil.Process(self.process.pid).children(recursive=True)

    @property
    def workers(self) -> list[psutil.Process]:
        """Its workers that are at a trial."""
        return working(self.process.pid)


def working(pid: int) -> list[psutil.Process]:
    """Workers at a trial, among what a process started."""
    family = psutil.Process(pid).children(recursive=True)
    return [p for p in family if "ray::Worker.run" in " ".join(cmdline(p))]


def cmdline(process: psutil.Process) -> list[str]:
    """How a process was started; nothing if it is gone."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@contextmanager
def sweep(
    folder: Path,
    *arguments: str,
    command: Sequence[str] = ("run",),
    env: Mapping[str, str] = {},
    program: Sequence[str] = (sys.executable, "-m", "masksweep.sweeps.cli"),
) -> Iterator[Driver]:
    """Start it; if it still runs at the end, it is killed with all that it started."""
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [*program, *command, *arguments],
            cwd=folder,
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            env=clean_env(**env),
            start_new_session=True,
        )
    driver = Driver(folder, process)
    family: list[psutil.Process] = []
    try:
        yield driver
    finally:
        if process.poll() is None:
            family = driver.family
            process.send_signal(signal.SIGKILL)
            process.wait()
        for one in family:
            if one.is_running():
                one.kill()


def ran(folder: Path, *arguments: str, **options: Any) -> Driver:
    """A sweep from its start to its end."""
    with sweep(folder, *arguments, **options) as driver:
        driver.wait()
    return driver


class Store:
    """What a store has of a sweep."""

    def __init__(self, uri: str, sweep_name: str) -> None:
        self.client, self._name = MlflowClient(uri), sweep_name

    def _runs(self, query: str) -> list[Run]:
        experiment = self.client.get_experiment_by_name("masksweep")
        assert experiment is not None
        return list(self.client.search_runs([experiment.experiment_id], query))

    @property
    def _parents(self) -> list[Run]:
        return self._runs(f"tags.`sweep.name` = '{self._name}' and tags.`sweep.id` LIKE '%'")

    @property
    def parent(self) -> Run:
        (found,) = self._parents
        return found

    @property
    def children(self) -> list[Run]:
        return self._runs(f"tags.mlflow.parentRunId = '{self.parent.info.run_id}'")

    def by_status(self) -> Counter[str]:
        """How many trials are in which status; none while the sweep is not recorded yet."""
        if not (self._has_runs() and self._parents):
            return Counter()
        return Counter(str(run.info.status) for run in self.children)

    def _has_runs(self) -> bool:
        """Whether a SQLite store is made: MLflow would make it beside the sweep that does."""
        if (path := database(self.client.tracking_uri)) is None:
            return True
        with (
            suppress(sqlite3.OperationalError),
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db,
        ):
            return bool(db.execute("SELECT count(*) FROM runs").fetchone()[0])
        return False

    def digests(self) -> dict[str, str]:
        """Of the trials that finished, by trial id. Fails if one is there twice."""
        done = [r for r in self.children if r.info.status == "FINISHED"]
        found = {r.data.tags["trial.id"]: r.data.tags["trial.weights_sha256"] for r in done}
        assert len(found) == len(done), "a trial is there twice"
        return found

    def curve(self, run: Run, metric: str) -> list[int]:
        """Steps of a metric's points."""
        return [p.step for p in self.client.get_metric_history(run.info.run_id, metric)]


def local_store(folder: Path, sweep_name: str) -> Store:
    return Store(f"sqlite:///{folder / 'mlflow.db'}", sweep_name)
