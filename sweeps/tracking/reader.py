"""What MLflow has of a sweep: its runs, as ids, files, or pandas frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.redact import shown
from masksweep.sweeps.common.seeding import short_digest
from masksweep.sweeps.config import text_settings
from masksweep.sweeps.config.outcome import Outcome, Status
from masksweep.sweeps.results import CURVES, TrialResult
from masksweep.sweeps.tracking import mlflow_view, run_config
from masksweep.sweeps.tracking.client import client_class, opening, search
from masksweep.sweeps.tracking.store import AGAIN, RUN_ID, Refused, exists, store_uri, translated

THREADS = 8
"""Requests to a server at once."""


class Loaded(NamedTuple):
    """The results of sweeps, tidy."""

    trials: pd.DataFrame
    """A row for each trial: `sweep`, `run_id`, `name`, `status`, `reason`, its settings by their
    keys (`strategy`, `pattern.sparsity`), its final metrics by theirs (`test/accuracy`)."""
    curves: pd.DataFrame
    """A row for each point: `run_id`, `metric`, `epoch`, `value`."""


def load(sweep: str | Sequence[str] | None = None, uri: str | None = None) -> Loaded:
    """The trials of sweeps, by name or parent run id; by default those of the latest one.

    Each trial is there once: runs that another one has superseded or repaired are left out, and
    those that still run.

    Raises `Invalid` for a store that cannot be opened, or has no such sweep; `Away` if the store is
    not there.

        trials, curves = sweeps.load("quickstart")
        trials.groupby("strategy")["test/accuracy"].mean()
    """
    with _client(uri) as client, translated():
        pairs = [(parent, _children(client, parent)) for parent in _parents(client, sweep, uri)]
        rows = [_row(parent, run) for parent, runs in pairs for run in runs]
        runs = [run for _, found in pairs for run in found]
        with ThreadPoolExecutor(THREADS) as pool:
            points = [p for part in pool.map(lambda run: _points(client, run), runs) for p in part]
    return Loaded(
        pd.DataFrame(rows),
        pd.DataFrame(points, columns=["run_id", "metric", "epoch", "value"]),
    )


@dataclass(frozen=True)
class Sweep:
    """What the store has of one sweep, or of several as one."""

    name: str
    run_id: str
    question: str
    """What it is to settle, if it says so."""
    command: str
    """What runs it again."""
    outcomes: list[Outcome]
    """Of its trials that have ended, the oldest first."""
    environments: dict[str, list[str]]
    """What the trials ran on, as `key: value` lines, with the names of those that did."""
    left_out: list[str]
    """Why trials are left out."""
    runs: Sequence[str] = ()
    """The ids of its trials' runs."""
    parts: Sequence[Sweep] = ()
    """The sweeps that it is put together of; they alone have run ids and commands then."""

    @property
    def each(self) -> Sequence[Sweep]:
        """Its parts, or itself."""
        return self.parts or [self]


def outcomes(sweep: str | Sequence[str] | None, uri: str | None, folder: Path) -> list[Sweep]:
    """The trials of sweeps as they were planned and ended; as `load`, with what their runs keep.

    A trial that several of them have is in one alone. The files that trials name, which are part of
    what a trial is, are put in the folder. Raises as `load`.
    """
    with _client(uri) as client, translated():
        own = {p: _children(client, p) for p in _parents(client, sweep, uri)}
        told = {run.info.run_id for run in _once([run for runs in own.values() for run in runs])}
        return [_sweep(client, p, runs, told, folder) for p, runs in own.items()]


def _sweep(client: Any, parent: str, own: Sequence[Any], told: Set[str], folder: Path) -> Sweep:
    """One sweep, with those of its own runs that are to be told."""
    runs = [run for run in own if run.info.run_id in told]
    ended = [run for run in runs if run.info.status != "KILLED"]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda run: _outcome(client, run, folder), ended))
    left_out = [o for o, _ in found if isinstance(o, str)]
    if stopped := len(runs) - len(ended):
        left_out.append(f"{stopped} of them were stopped before their end; run the sweep again")
    if others := len(own) - len(runs):
        left_out.append(f"{others} of its trials are in another of these too, and told there")
    environments: dict[str, list[str]] = {}
    for outcome, environment in found:
        if not isinstance(outcome, str) and environment:
            environments.setdefault(environment, []).append(outcome.name)
    itself = run_of(client, parent)
    tags = itself.data.tags
    return Sweep(
        name=tags.get("sweep.name", itself.info.run_name),
        run_id=parent,
        question=tags.get("sweep.question", ""),
        command=tags.get("sweep.command", ""),
        outcomes=[o for o, _ in found if not isinstance(o, str)],
        environments=environments,
        left_out=left_out,
        runs=[run.info.run_id for run in runs],
    )


def _outcome(client: Any, run: Any, folder: Path) -> tuple[Outcome | str, str]:
    """(a trial and how it ended, or why that cannot be read; what it ran on)."""
    own = folder / run.info.run_id
    own.mkdir()
    there = {file.path for file in client.list_artifacts(run.info.run_id)}
    for name in there & {*run_config.FILES, "environment.txt"}:
        client.download_artifacts(run.info.run_id, name, str(own))
    try:
        trial = run_config.read(own / run_config.NAME)[0]
    except Invalid as error:
        return f"{run.info.run_name}: {error}".replace(f"{own}/", ""), ""
    told = own / "environment.txt"
    tags = run.data.tags
    status = tags.get("trial.status", "failed")
    reason = tags.get("trial.reason", "")
    ended: Status = status if status in ("ok", "skipped") else "failed"
    result = TrialResult(
        "skipped" if ended == "skipped" else "ok", reason, metrics=run.data.metrics, tags=tags
    )
    outcome = Outcome(trial, "", ended, result, reason)
    return outcome, told.read_text() if told.exists() else ""


def trials_of(uri: str | None, sweep: str) -> list[str]:
    """The ids of the runs of a sweep's trials that have finished, the oldest first.

    Raises `Invalid` and `Away` as `load`.
    """
    with _client(uri) as client, translated():
        (parent,) = _parents(client, sweep, uri)
        runs = [r for r in _children(client, parent) if r.info.status == "FINISHED"]
    if not runs:
        raise Invalid("sweep", sweep, "no sweep with trials that have finished")
    return [run.info.run_id for run in runs]


def latest_page(uri: str) -> str:
    """Where MLflow's page shows the latest sweep, after the server's address; or all, without one.

    Raises `Invalid` for a store that cannot be opened or read, `Away` if it is not there.
    """
    try:
        with _client(uri) as client, translated():
            run = run_of(client, _parents(client, None, uri)[0])
            experiment, sweep = run.info.experiment_id, run.data.tags["sweep.id"]
            if mlflow_view.key(sweep) in client.get_experiment(experiment).tags:
                return mlflow_view.address(experiment, sweep)
    except Refused as error:
        raise Invalid("tracking.uri", shown(uri), str(error)) from error
    except Invalid as error:
        if error.key == "tracking.uri" and exists(uri):
            raise
    return "#/experiments?workflowType=machine_learning"


def download(uri: str | None, run_id: str, names: Sequence[str], folder: Path) -> list[str]:
    """Copy those of a run's artifacts of these names that are there into a folder; which they are.

    Raises `Invalid` for a store that cannot be opened or read, or has no such run, `Away` if it is
    not there.
    """
    with _client(uri) as client:
        run_of(client, run_id)
    try:
        with translated():
            there = {file.path for file in client.list_artifacts(run_id)}
            found = [name for name in names if name in there]
            for name in found:
                client.download_artifacts(run_id, name, str(folder))
    except Refused as error:
        raise Invalid("run", run_id, f"its artifacts cannot be read: {error}") from error
    return found


@contextmanager
def _client(uri: str | None) -> Iterator[Any]:
    uri = store_uri(uri)
    if not exists(uri):
        raise Invalid("tracking.uri", shown(uri), "no store there")
    with opening(uri):
        client = client_class()(tracking_uri=uri)
        client.search_experiments(max_results=1)
    yield client


def run_of(client: Any, run_id: str) -> Any:
    """A run. Raises `Invalid` if there is none of this id."""
    try:
        return client.get_run(run_id)
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise Invalid("run", run_id, f"no such run in {shown(client.tracking_uri)}") from error


def _search(client: Any, query: str) -> list[Any]:
    """Runs of all experiments, the newest first."""
    return search(client, [e.experiment_id for e in client.search_experiments()], query)


def _parents(client: Any, sweep: str | Sequence[str] | None, uri: str | None) -> list[str]:
    """The ids of the sweeps' own runs."""
    found = []
    for name in [sweep] if isinstance(sweep, str | None) else sweep:
        if name is not None and RUN_ID.fullmatch(name):
            found.append(run_of(client, name).info.run_id)
            continue
        asked = "LIKE '%'" if name is None else f"= '{short_digest(name)}'"
        runs = _search(client, f"tags.`sweep.id` {asked}")
        if name is None:  # what was only run again is nobody's latest sweep
            runs = [r for r in runs if not r.info.run_name.startswith(AGAIN)]
        if not runs:
            raise Invalid("sweep", name or "", f"none of this name in {shown(store_uri(uri))}")
        newest = {run.info.experiment_id: run.info.run_id for run in reversed(runs)}
        if name is not None and len(newest) > 1:
            ids = ", ".join(newest.values())
            raise Invalid("sweep", name, f"in several experiments; give its run id, one of {ids}")
        found.append(runs[0].info.run_id)
    return found


def _children(client: Any, parent: str) -> list[Any]:
    """The runs of a sweep's trials that have ended, the oldest first, one of each trial."""
    runs = _search(client, f"tags.mlflow.parentRunId = '{parent}'")
    ended = [r for r in reversed(runs) if r.info.status != "RUNNING"]
    return _once([r for r in ended if "trial.superseded" not in r.data.tags])


def _once(runs: Sequence[Any]) -> list[Any]:
    """Of each trial the newest of the runs that have finished, or of all if none has."""
    newest = sorted(runs, key=lambda r: (r.info.status == "FINISHED", r.info.start_time))
    chosen = {r.data.tags.get("trial.id", r.info.run_id): r.info.run_id for r in newest}
    ids = set(chosen.values())
    return [r for r in runs if r.info.run_id in ids]


def _row(parent: str, run: Any) -> dict[str, Any]:
    tags: Mapping[str, str] = run.data.tags
    return {
        "sweep": tags.get("sweep.name", parent),
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": tags.get("trial.status", run.info.status.lower()),
        "reason": tags.get("trial.reason", ""),
        "through": tags.get("integrity.through", ""),
        "weights_sha256": tags.get("trial.weights_sha256", ""),
        **text_settings.values(run.data.params),
        **run.data.metrics,
    }


def _points(client: Any, run: Any) -> list[tuple[str, str, int, float]]:
    return [
        (run.info.run_id, metric, point.step, point.value)
        for metric in run.data.metrics
        if metric.startswith(CURVES)
        for point in client.get_metric_history(run.info.run_id, metric)
    ]
