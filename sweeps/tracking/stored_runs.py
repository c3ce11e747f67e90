"""Finds the runs of sweeps in MLflow, and copies their artifacts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.common.seeding import short_digest
from masksweep.sweeps.tracking import mlflow_view
from masksweep.sweeps.tracking.client import client_class, opening, search
from masksweep.sweeps.tracking.store import (
    REPRODUCTION_PREFIX,
    RUN_ID,
    StoreRefused,
    may_have_content,
    store_uri,
    translate_errors,
)

THREADS = 8
"""Largest number of simultaneous requests to a server."""


def finished_run_ids(uri: str | None, sweep: str) -> list[str]:
    """Returns the run ids of a sweep's finished trials, the oldest first.

    Args:
        uri: URI of the store, as `tracking.uri`.
        sweep: Name or parent run id of the sweep.

    Raises:
        Invalid: The store cannot be opened, or has no such sweep with finished trials.
        StoreUnavailable: The store cannot be reached.
    """
    with open_client(uri) as client, translate_errors():
        (parent,) = parent_runs(client, sweep, uri)
        runs = [r for r in trial_runs(client, parent) if r.info.status == "FINISHED"]
    if not runs:
        raise Invalid("sweep", sweep, "no sweep with trials that have finished")
    return [run.info.run_id for run in runs]


def latest_view_url(uri: str) -> str:
    """Returns the URL of MLflow's view of the latest sweep, relative to the server's address.

    If there is no sweep with a view, this is the URL of the list of experiments.

    Raises:
        Invalid: The store cannot be opened or read.
        StoreUnavailable: The store cannot be reached.
    """
    try:
        with open_client(uri) as client, translate_errors():
            run = get_run(client, parent_runs(client, None, uri)[0])
            experiment, sweep = run.info.experiment_id, run.data.tags["sweep.id"]
            if mlflow_view.view_tag_key(sweep) in client.get_experiment(experiment).tags:
                return mlflow_view.view_url(experiment, sweep)
    except StoreRefused as error:
        raise Invalid("tracking.uri", redact(uri), str(error)) from error
    except Invalid as error:
        if error.key == "tracking.uri" and may_have_content(uri):
            raise
    return "#/experiments?workflowType=machine_learning"


def download(
    uri: str | None, run_id: str, is_wanted: Callable[[str], bool], folder: Path
) -> list[str]:
    """Copies artifacts of a run into a folder.

    Args:
        uri: URI of the store, as `tracking.uri`.
        run_id: Id of the run.
        is_wanted: Says for the name of an artifact whether it is copied.
        folder: Folder to copy to.

    Returns:
        The names of the copied artifacts.

    Raises:
        Invalid: The store cannot be opened or read, or has no such run.
        StoreUnavailable: The store cannot be reached.
    """
    with open_client(uri) as client:
        get_run(client, run_id)
    try:
        with translate_errors():
            artifacts = sorted(file.path for file in client.list_artifacts(run_id))
            copied = [name for name in artifacts if is_wanted(name)]
            for name in copied:
                client.download_artifacts(run_id, name, str(folder))
    except StoreRefused as error:
        raise Invalid("run", run_id, f"its artifacts cannot be read: {error}") from error
    return copied


@contextmanager
def open_client(uri: str | None) -> Iterator[Any]:
    """Opens an existing store, and gives MLflow's client."""
    uri = store_uri(uri)
    if not may_have_content(uri):
        raise Invalid("tracking.uri", redact(uri), "no store there")
    with opening(uri):
        client = client_class()(tracking_uri=uri)
        client.search_experiments(max_results=1)
    yield client


def get_run(client: Any, run_id: str) -> Any:
    """Returns a run.

    Raises:
        Invalid: The store has no run with this id.
    """
    try:
        return client.get_run(run_id)
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise Invalid("run", run_id, f"no such run in {redact(client.tracking_uri)}") from error


def _search(client: Any, query: str) -> list[Any]:
    """Returns the runs of all experiments that match a query, the newest first."""
    return search(client, [e.experiment_id for e in client.search_experiments()], query)


def parent_runs(client: Any, sweep: str | Sequence[str] | None, uri: str | None) -> list[str]:
    """Returns the ids of the sweeps' parent runs."""
    parents = []
    for name in [sweep] if isinstance(sweep, str | None) else sweep:
        if name is not None and RUN_ID.fullmatch(name):
            parents.append(get_run(client, name).info.run_id)
            continue
        condition = "LIKE '%'" if name is None else f"= '{short_digest(name)}'"
        runs = _search(client, f"tags.`sweep.id` {condition}")
        if name is None:  # a reproduction is not counted as the latest sweep
            runs = [r for r in runs if not r.info.run_name.startswith(REPRODUCTION_PREFIX)]
        if not runs:
            raise Invalid("sweep", name or "", f"none of this name in {redact(store_uri(uri))}")
        newest = {run.info.experiment_id: run.info.run_id for run in reversed(runs)}
        if name is not None and len(newest) > 1:
            ids = ", ".join(newest.values())
            raise Invalid("sweep", name, f"in several experiments; give its run id, one of {ids}")
        parents.append(runs[0].info.run_id)
    return parents


def trial_runs(client: Any, parent: str) -> list[Any]:
    """Returns the ended runs of a sweep's trials, the oldest first, one run per trial.

    A run that another has replaced (`--rerun`) is left out once the other has finished.
    """
    runs = _search(client, f"tags.mlflow.parentRunId = '{parent}'")
    ended = [r for r in reversed(runs) if r.info.status != "RUNNING"]
    finished = {r.info.run_id for r in ended if r.info.status == "FINISHED"}
    valid = [r for r in ended if r.data.tags.get("trial.superseded") not in finished]
    return one_run_per_trial(valid)


def one_run_per_trial(runs: Sequence[Any]) -> list[Any]:
    """Returns one run per trial: the newest finished one, or the newest if none has finished."""
    newest = sorted(runs, key=lambda r: (r.info.status == "FINISHED", r.info.start_time))
    run_ids = {r.data.tags.get("trial.id", r.info.run_id): r.info.run_id for r in newest}
    ids = set(run_ids.values())
    return [r for r in runs if r.info.run_id in ids]
