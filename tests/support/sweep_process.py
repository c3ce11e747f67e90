"""Runs a sweep in a child process, which a test can watch, disturb and kill."""

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

from masksweep.sweeps.tracking.store import database_path

PATIENCE_S = 240.0


def clean_env(**more: str) -> dict[str, str]:
    """This process's environment without the variables of Hydra, MLflow, Ray and TensorFlow.

    PYTHONSAFEPATH is left out too: a command that ran in this process may have set it. So are
    COLUMNS and LINES, which pytest-xdist sets to the size of the terminal. `more` is added. The
    priority of Ray's workers stays; see `tests/conftest.py`.
    """
    prefixes = ("HYDRA_", "MLFLOW_", "RAY_", "CUDA_", "TF_", "PYTHONSAFEPATH", "COLUMNS", "LINES")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
    return kept | {"RAY_worker_niceness": "0"} | more


def wait_for(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Waits until the condition is true. Raises `TimeoutError` if it is not in time."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


@dataclass
class Driver:
    """A running `masksweep` command: its process and its output in a folder."""

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
        """The progress lines of the trials that have ended so far."""
        return [line for line in self.stderr.splitlines() if line.startswith("[")]

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Waits until the condition is true; fails if the process ends first."""

        def holds_or_ended() -> object:
            return condition() or self.process.poll() is not None

        wait_for(holds_or_ended)
        if not condition():
            raise AssertionError(f"it ended before:\n{self.stdout}\n{self.stderr}")

    def wait(self) -> int:
        """Waits until the process has ended, and returns its exit code."""
        self.code = self.process.wait(PATIENCE_S)
        return self.code

    @property
    def family(self) -> list[psutil.Process]:
        """All its current descendants."""
        return psutil.Process(self.process.pid).children(recursive=True)

    @property
    def workers(self) -> list[psutil.Process]:
        """Its workers that are running a trial."""
        return working(self.process.pid)


def working(pid: int) -> list[psutil.Process]:
    """The descendants of a process that are workers running a trial."""
    family = psutil.Process(pid).children(recursive=True)
    return [p for p in family if "ray::Worker.run" in " ".join(cmdline(p))]


def cmdline(process: psutil.Process) -> list[str]:
    """The command line of a process; empty if the process has ended."""
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
    """Starts a command, and kills it with all its descendants if it still runs at the end.

    Args:
        folder: The current folder of the command. Its stdout and stderr are files in it.
        *arguments: Arguments after the command.
        command: The command and its own first options.
        env: Additional environment variables.
        program: How `masksweep` is started.
    """
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
        for child in family:
            if child.is_running():
                child.kill()


def ran(folder: Path, *arguments: str, **options: Any) -> Driver:
    """Runs a command from its start to its end."""
    with sweep(folder, *arguments, **options) as driver:
        driver.wait()
    return driver


def stop_alone(process: subprocess.Popen[Any], number: signal.Signals) -> int:
    """Sends a signal to a command alone, not to its children, and returns its exit code.

    Fails if one of its children is still there a second after its end.
    """
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.send_signal(number)
    code = process.wait(PATIENCE_S)
    _, alive = psutil.wait_procs(family, 1)
    assert not alive
    return code


class Store:
    """The runs of one sweep in a tracking store."""

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
        (run,) = self._parents
        return run

    @property
    def children(self) -> list[Run]:
        return self._runs(f"tags.mlflow.parentRunId = '{self.parent.info.run_id}'")

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.children if run.info.status == "FINISHED"]

    def by_status(self) -> Counter[str]:
        """Number of trials by status; empty while the sweep is not recorded yet."""
        if not (self._has_runs() and self._parents):
            return Counter()
        return Counter(str(run.info.status) for run in self.children)

    def _has_runs(self) -> bool:
        """Whether the store has runs.

        Reads SQLite directly: MLflow's client would create the store while the sweep creates it.
        """
        if (path := database_path(self.client.tracking_uri)) is None:
            return True
        with (
            suppress(sqlite3.OperationalError),
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db,
        ):
            return bool(db.execute("SELECT count(*) FROM runs").fetchone()[0])
        return False

    def digests(self) -> dict[str, str]:
        """Digests of the finished trials' weights by trial id. Fails if a trial is there twice."""
        finished = self.finished
        found = {r.data.tags["trial.id"]: r.data.tags["trial.weights_sha256"] for r in finished}
        assert len(found) == len(finished), "a trial is there twice"
        return found

    def curve(self, run: Run, metric: str) -> list[int]:
        """The steps at which a metric was logged."""
        return [p.step for p in self.client.get_metric_history(run.info.run_id, metric)]


def local_store(folder: Path, sweep_name: str) -> Store:
    return Store(f"sqlite:///{folder / 'mlflow.db'}", sweep_name)
