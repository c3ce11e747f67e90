"""The jobs of a sweep: packs of trials, their resources, and the places of their files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from masksweep.sweeps.common.limits import STATE_FOLDER
from masksweep.sweeps.config.plan import PlannedTrial, group_into_packs
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.launch.cluster import Spec
from masksweep.sweeps.launch.job import Job
from masksweep.sweeps.launch.worker import Task


def jobs(planned: Sequence[PlannedTrial], logs: Path) -> list[Job]:
    """Returns the jobs of the trials that are to run.

    Args:
        planned: The plan of the sweep.
        logs: Folder of the trials' log files.
    """
    return [
        _job(pack, logs) for pack in group_into_packs([p for p in planned if p.state == "to run"])
    ]


def _job(pack: Sequence[PlannedTrial], logs: Path) -> Job:
    """Returns the job of trials that run side by side.

    The key of the job is the ids of its trials, separated by spaces.
    """
    first = pack[0].trial
    resources = first.resources
    spec = Spec(resources.num_cpus, resources.num_gpus, resources.memory, first.train.threads)
    tasks = [Task.of(p.trial, log_file(p, logs)) for p in pack]
    parts = tuple(_job([p], logs) for p in pack) if len(pack) > 1 else ()
    # a pack with too few trials is filled up, so it takes as long as a full one
    return Job(" ".join(t.id for t in tasks), tasks, spec, first.width, parts)


def log_file(planned: PlannedTrial, logs: Path) -> Path:
    """Returns the path of a trial's log file in the folder of logs."""
    return logs / f"{_file_name(planned.name)}-{planned.trial.id[:8]}.log"


def log_folder(name: str) -> Path:
    """Returns the folder of a sweep's log files."""
    return STATE_FOLDER / "logs" / _file_name(name)


def _file_name(text: str) -> str:
    """Converts a text to a file name of at most 80 characters."""
    return re.sub(r"[^\w.=-]+", "_", text)[:80]


def checkpoint_folder(trial: Trial) -> str:
    """Returns the folder or URI of a trial's checkpoints, as an absolute path for workers."""
    place = trial.checkpoint.path or str(STATE_FOLDER / "checkpoints")
    return place if "://" in place else str(Path(place).absolute())
