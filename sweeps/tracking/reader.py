"""Reads sweeps from MLflow: runs as ids, files, outcomes or pandas frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.common.seeding import short_digest
from masksweep.sweeps.config import text_settings
from masksweep.sweeps.config.outcome import Outcome, Status
from masksweep.sweeps.results import CURVE_PREFIXES, TrialResult
from masksweep.sweeps.tracking import mlflow_view, run_config
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


class Loaded(NamedTuple):
    """The results of sweeps, as tidy data frames."""

    trials: pd.DataFrame
    """One row per trial. Columns: `sweep`, `run_id`, `name`, `status`, `reason`, `through`,
    `weights_sha256`, the settings by their keys (`strategy`, `pattern.sparsity`), and the final
    metrics by name (`test/accuracy`)."""
    curves: pd.DataFrame
    """One row per point of a curve. Columns: `run_id`, `metric`, `epoch`, `value`."""


def load(sweep: str | Sequence[str] | None = None, uri: str | None = None) -> Loaded:
    """Loads the trials of sweeps as data frames.

    Each trial has one row. Runs that are still running are left out, and so are runs that a later
    run of the same trial has replaced.

    Args:
        sweep: Names or parent run ids of sweeps; by default the latest sweep.
        uri: URI of the store, as `tracking.uri`.

    Raises:
        Invalid: The store cannot be opened, or has no such sweep.
        StoreUnavailable: The store cannot be reached.

    Example:
        >>> trials, curves = sweeps.load("quickstart")
        >>> trials.groupby("strategy")["test/accuracy"].mean()
    """
    with _client(uri) as client, translate_errors():
        pairs = [(parent, _children(client, parent)) for parent in _parents(client, sweep, uri)]
        rows = [_row(parent, run) for parent, runs in pairs for run in runs]
        runs = [run for _, children in pairs for run in children]
        with ThreadPoolExecutor(THREADS) as pool:
            points = [p for part in pool.map(lambda run: _points(client, run), runs) for p in part]
    return Loaded(
        pd.DataFrame(rows),
        pd.DataFrame(points, columns=["run_id", "metric", "epoch", "value"]),
    )


@dataclass(frozen=True)
class StoredSweep:
    """A sweep as the store has it, or several sweeps combined to one."""

    name: str
    run_id: str
    question: str
    """The question that the sweep is to answer; empty if none was given."""
    command: str
    """The command that runs the sweep again."""
    outcomes: list[Outcome]
    """Outcomes of the trials that have ended, the oldest first."""
    environments: dict[str, list[str]]
    """Names of the trials that ran in an environment, by its description (lines of `key:
    value`)."""
    left_out: list[str]
    """Reasons why trials are left out."""
    runs: Sequence[str] = ()
    """Ids of the trials' runs."""
    parts: Sequence[StoredSweep] = ()
    """The sweeps that this one combines. If there are any, only they have run ids and commands."""

    @property
    def single_sweeps(self) -> Sequence[StoredSweep]:
        """The combined sweeps, or the sweep itself."""
        return self.parts or [self]


def load_sweeps(
    sweep: str | Sequence[str] | None, uri: str | None, folder: Path
) -> list[StoredSweep]:
    """Returns sweeps with the outcomes of their trials, read from their config files.

    A trial that several of the sweeps have is in only one of them.

    Args:
        sweep: Names or parent run ids of sweeps; None for the latest sweep.
        uri: URI of the store, as `tracking.uri`.
        folder: An empty folder for the files that the trials' configs name, which are part of a
            trial.

    Raises:
        Invalid: The store cannot be opened, or has no such sweep.
        StoreUnavailable: The store cannot be reached.
    """
    with _client(uri) as client, translate_errors():
        by_parent = {p: _children(client, p) for p in _parents(client, sweep, uri)}
        chosen_ids = {
            run.info.run_id
            for run in _one_run_per_trial([run for runs in by_parent.values() for run in runs])
        }
        return [_sweep(client, p, runs, chosen_ids, folder) for p, runs in by_parent.items()]


def _sweep(
    client: Any, parent: str, children: Sequence[Any], chosen_ids: Set[str], folder: Path
) -> StoredSweep:
    """Returns one sweep with the chosen ones of its trials' runs."""
    runs = [run for run in children if run.info.run_id in chosen_ids]
    ended = [run for run in runs if run.info.status != "KILLED"]
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(lambda run: _outcome(client, run, folder), ended))
    left_out = [o for o, _ in results if isinstance(o, str)]
    if interrupted := len(runs) - len(ended):
        left_out.append(f"{interrupted} of them were stopped before their end; run the sweep again")
    if elsewhere := len(children) - len(runs):
        left_out.append(f"{elsewhere} of its trials are in another of these too, and told there")
    environments: dict[str, list[str]] = {}
    for outcome, environment in results:
        if not isinstance(outcome, str) and environment:
            environments.setdefault(environment, []).append(outcome.name)
    parent_run = get_run(client, parent)
    tags = parent_run.data.tags
    return StoredSweep(
        name=tags.get("sweep.name", parent_run.info.run_name),
        run_id=parent,
        question=tags.get("sweep.question", ""),
        command=tags.get("sweep.command", ""),
        outcomes=[
            _compared_by(outcome, tags.get("sweep.objective"))
            for outcome, _ in results
            if not isinstance(outcome, str)
        ],
        environments=environments,
        left_out=left_out,
        runs=[run.info.run_id for run in runs],
    )


def _compared_by(outcome: Outcome, objective: str | None) -> Outcome:
    """Returns an outcome with the sweep's `objective`; None leaves that of the trial.

    A trial that was done before is not run again for another objective, so its config may have the
    one of then.
    """
    if objective is None:
        return outcome
    trial = outcome.trial.model_copy(update={"objective": objective or None})
    return replace(outcome, trial=trial)


def _outcome(client: Any, run: Any, folder: Path) -> tuple[Outcome | str, str]:
    """Returns a trial's outcome and a description of its environment.

    If the trial cannot be read, the first value is the reason as text.
    """
    run_folder = folder / run.info.run_id
    run_folder.mkdir()
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    for name in artifacts:
        if run_config.is_file_of_run(name) or name == "environment.txt":
            client.download_artifacts(run.info.run_id, name, str(run_folder))
    try:
        trial = run_config.read(run_folder / run_config.FILE_NAME)[0]
    except Invalid as error:
        return f"{run.info.run_name}: {error}".replace(f"{run_folder}/", ""), ""
    environment_file = run_folder / "environment.txt"
    tags = run.data.tags
    status = tags.get("trial.status", "failed")
    reason = tags.get("trial.reason", "")
    ended: Status = status if status in ("ok", "skipped") else "failed"
    result = TrialResult(
        "skipped" if ended == "skipped" else "ok", reason, metrics=run.data.metrics, tags=tags
    )
    outcome = Outcome(trial, "", ended, result, reason)
    return outcome, environment_file.read_text() if environment_file.exists() else ""


def finished_run_ids(uri: str | None, sweep: str) -> list[str]:
    """Returns the run ids of a sweep's finished trials, the oldest first.

    Args:
        uri: URI of the store, as `tracking.uri`.
        sweep: Name or parent run id of the sweep.

    Raises:
        Invalid: The store cannot be opened, or has no such sweep with finished trials.
        StoreUnavailable: The store cannot be reached.
    """
    with _client(uri) as client, translate_errors():
        (parent,) = _parents(client, sweep, uri)
        runs = [r for r in _children(client, parent) if r.info.status == "FINISHED"]
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
        with _client(uri) as client, translate_errors():
            run = get_run(client, _parents(client, None, uri)[0])
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
    with _client(uri) as client:
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
def _client(uri: str | None) -> Iterator[Any]:
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


def _parents(client: Any, sweep: str | Sequence[str] | None, uri: str | None) -> list[str]:
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


def _children(client: Any, parent: str) -> list[Any]:
    """Returns the ended runs of a sweep's trials, the oldest first, one run per trial."""
    runs = _search(client, f"tags.mlflow.parentRunId = '{parent}'")
    ended = [r for r in reversed(runs) if r.info.status != "RUNNING"]
    return _one_run_per_trial([r for r in ended if "trial.superseded" not in r.data.tags])


def _one_run_per_trial(runs: Sequence[Any]) -> list[Any]:
    """Returns one run per trial: the newest finished one, or the newest if none has finished."""
    newest = sorted(runs, key=lambda r: (r.info.status == "FINISHED", r.info.start_time))
    run_ids = {r.data.tags.get("trial.id", r.info.run_id): r.info.run_id for r in newest}
    ids = set(run_ids.values())
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
        **text_settings.parse_params(run.data.params),
        **run.data.metrics,
    }


def _points(client: Any, run: Any) -> list[tuple[str, str, int, float]]:
    return [
        (run.info.run_id, metric, point.step, point.value)
        for metric in run.data.metrics
        if metric.startswith(CURVE_PREFIXES)
        for point in client.get_metric_history(run.info.run_id, metric)
    ]
