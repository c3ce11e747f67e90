"""Fetches the trained models of earlier runs, from which trials start (`start.run`)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.limits import STATE_FOLDER
from masksweep.sweeps.config.composed import ComposedJob

MODEL_FILE = "model.keras"
"""Name of the artifact of a trial's run that is fetched."""


def fetch(jobs: Sequence[ComposedJob]) -> list[ComposedJob]:
    """Returns the jobs with `start.path` set to a copy of the model of the run in `start.run`.

    The copy is kept in the folder of the checkpoints, which all workers see. A run is fetched once.

    Args:
        jobs: The composed jobs.

    Raises:
        Invalid: A run is not in the store or has no model, or a job has both settings.
        StoreUnavailable: The store cannot be reached.
    """
    return [_with_path(job) for job in jobs]


def _with_path(job: ComposedJob) -> ComposedJob:
    start = job.values.get("start")
    if not isinstance(start, Mapping) or (run := start.get("run")) is None:
        return job
    if (path := start.get("path")) is not None:
        raise Invalid("start.run", run, f"must be null with start.path={path}")
    from masksweep.sweeps.tracking.store import RUN_ID

    if not isinstance(run, str) or not RUN_ID.fullmatch(run):
        raise Invalid("start.run", run, "must be the id of a run, which is 32 hex digits")
    uri, folder = _setting(job, "tracking", "uri"), _setting(job, "checkpoint", "path")
    file = _local_folder(folder) / f"{run}.keras"
    if not file.is_file():
        _download(uri, run, file)
    return replace(job, values={**job.values, "start": {**start, "path": str(file)}})


def _setting(job: ComposedJob, section: str, key: str) -> Any:
    values = job.values.get(section)
    return values.get(key) if isinstance(values, Mapping) else None


def _local_folder(checkpoints: Any) -> Path:
    """Returns the folder for the copies; that of the driver if the checkpoints are at a URI."""
    is_local = isinstance(checkpoints, str) and "://" not in checkpoints
    place = Path(checkpoints) if is_local else STATE_FOLDER / "checkpoints"
    return place.absolute() / "starts"


def _download(uri: str | None, run: str, file: Path) -> None:
    """Copies the model of a run to a file, which is complete as soon as it exists."""
    from masksweep.sweeps.common.spinner import show_status
    from masksweep.sweeps.tracking import stored_runs

    try:
        with show_status(f"Fetching run {run}"), tempfile.TemporaryDirectory() as folder:
            if not stored_runs.download(uri, run, {MODEL_FILE}.__contains__, Path(folder)):
                allowed = f"has no {MODEL_FILE}, which the run of a trial has when it ended well"
                raise Invalid("start.run", run, allowed)
            content = Path(folder, MODEL_FILE).read_bytes()
    except Invalid as error:
        key = "start.run" if error.key == "run" else error.key
        raise Invalid(key, error.value, error.allowed) from error
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as new:
        new.write(content)
    Path(new.name).replace(file)
