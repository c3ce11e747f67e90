"""The jobs of a sweep: which trials run side by side, what each takes, and where its files are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from masksweep.sweeps.common.limits import STATE
from masksweep.sweeps.config.plan import Planned, packs
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.launch.cluster import Spec
from masksweep.sweeps.launch.job import Job
from masksweep.sweeps.launch.worker import Task


def jobs(planned: Sequence[Planned], logs: Path) -> list[Job]:
    """The jobs of the trials that are to run; `logs` is the folder of their logs."""
    return [_job(pack, logs) for pack in packs([p for p in planned if p.state == "to run"])]


def _job(pack: Sequence[Planned], logs: Path) -> Job:
    """The job of trials that run side by side. Its key is their ids; alone, the trial's id."""
    first = pack[0].trial
    need = first.resources
    spec = Spec(need.num_cpus, need.num_gpus, need.memory, first.train.threads)
    tasks = [Task.of(p.trial, log_file(p, logs)) for p in pack]
    parts = tuple(_job([p], logs) for p in pack) if len(pack) > 1 else ()
    # a short pack is filled up, so it takes as long as a full one
    return Job(" ".join(t.id for t in tasks), tasks, spec, first.width, parts)


def log_file(planned: Planned, logs: Path) -> Path:
    """The file of a trial's log in the folder of logs."""
    return logs / f"{_as_file(planned.name)}-{planned.trial.id[:8]}.log"


def log_folder(name: str) -> Path:
    """The folder of a sweep's logs."""
    return STATE / "logs" / _as_file(name)


def _as_file(text: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", text)[:80]


def checkpoint_folder(trial: Trial) -> str:
    """Where a trial's checkpoints are kept, as a worker finds it."""
    given = trial.checkpoint.path or str(STATE / "checkpoints")
    return given if "://" in given else str(Path(given).absolute())
