"""Stored sweeps, with the outcomes of their trials."""

from __future__ import annotations

from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.config.outcome import Outcome, Status
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.tracking import run_config
from masksweep.sweeps.tracking.entities import stored_metrics
from masksweep.sweeps.tracking.store import translate_errors
from masksweep.sweeps.tracking.stored_runs import (
    THREADS,
    get_run,
    one_run_per_trial,
    open_client,
    parent_runs,
    trial_runs,
)

OF_EACH_TRIAL = "of each trial"
"""Tag `sweep.objective` of a sweep whose trials have several objectives."""


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
    with open_client(uri) as client, translate_errors():
        by_parent = {p: trial_runs(client, p) for p in parent_runs(client, sweep, uri)}
        chosen_ids = {
            run.info.run_id
            for run in one_run_per_trial([run for runs in by_parent.values() for run in runs])
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
    """Returns an outcome with the sweep's `objective`, if there is one for all trials.

    A trial that was done before is not run again for another objective, so its config may have the
    one of then.
    """
    if objective in (None, OF_EACH_TRIAL):
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
        "skipped" if ended == "skipped" else "ok", reason, metrics=stored_metrics(run), tags=tags
    )
    outcome = Outcome(trial, "", ended, result, reason)
    return outcome, environment_file.read_text() if environment_file.exists() else ""
