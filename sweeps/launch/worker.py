"""What a worker of a sweep does: trials, on one TensorFlow, each with a log of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.limits import LARGE
from masksweep.sweeps.common.redact import shown
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.config.trial import Trial, parse, recorded
from masksweep.sweeps.launch.cluster import Spec
from masksweep.sweeps.launch.job import Emit, Failure, Fatal, failure
from masksweep.sweeps.results import Apart, TrialResult
from masksweep.sweeps.training.state import Member

if TYPE_CHECKING:
    from masksweep.sweeps.results import Answer

LOG_BYTES = 2**20
"""The end of a log that travels."""


@dataclass(frozen=True)
class Log:
    """What a trial printed."""

    text: str


@dataclass(frozen=True)
class Task:
    """One trial as it is sent to a worker."""

    id: str
    config: Mapping[str, object]
    log: str
    """Where its log is written, if the worker sees the folder."""

    @classmethod
    def of(cls, trial: Trial, log: Path) -> Task:
        return cls(trial.id, portable(trial), str(log.absolute()))


def portable(trial: Trial) -> dict[str, Any]:
    """The trial's config for a worker, whose current folder is its own."""
    config = recorded(trial)
    for group in ("pattern", "held"):
        if path := config[group].get("path"):
            config[group]["path"] = str(Path(path).absolute())
    return config


class TrialWork:
    """Runs trials. `checkpoints` is a folder or an fsspec URI that all workers see."""

    def __init__(self, checkpoints: str, every_s: float) -> None:
        self._checkpoints, self._every_s = checkpoints, every_s
        self._trials = 0

    def setup(self, spec: Spec) -> None:
        from masksweep.sweeps.training.setup import prepare_process

        self._memory = spec.memory
        prepare_process(spec.threads, spec.num_gpus)

    def refusals(self, configs: Sequence[Mapping[str, object]]) -> Sequence[Answer]:
        """Why the strategy of each trial refuses its plan; see `preflight.answers`."""
        from masksweep.sweeps.training.preflight import answers

        return answers([parse(config) for config in configs])

    def run(
        self, payload: Sequence[Task], emit: Emit
    ) -> dict[str, TrialResult | Failure] | Failure:
        """Run trials that are to run side by side, or one; what each ended with, by its id.

        Or why they must be run apart. What is emitted is `(trial id, event)`.
        """
        from masksweep.sweeps.common import memory
        from masksweep.sweeps.training import pack

        def out_of_memory(reason: str) -> None:
            # others may have filled the process: programs are kept for the next trial
            emit(Fatal(reason, "memory", again=self._trials > 1))
            os._exit(137)

        def log(event: Log) -> None:
            for task in payload:
                emit((task.id, event))

        self._trials += 1
        found: dict[str, TrialResult | Failure] = {}
        with _logged(payload[0].log, log), memory.limit(self._memory, out_of_memory):
            members: list[Member] = []
            for task in payload:
                try:
                    members.append(self._member(task, emit))
                except Invalid as error:
                    found[task.id] = failure(error)
            try:
                ran = pack.run(members, Folder(self._checkpoints, "rounds"))
            except Apart as error:
                return failure(error)
            for member, result in zip(members, ran, strict=True):
                try:
                    found[member.trial.id] = self._result(member.trial.id, result)
                except Exception as error:  # where large files are left, for one
                    found[member.trial.id] = failure(error)
        return found

    def _member(self, task: Task, emit: Emit) -> Member:
        from masksweep.sweeps.training.checkpoint import Checkpoints

        trial = parse(task.config)
        if trial.id != task.id:
            raise Invalid("trial", task.id[:12], "its mask or held file has changed since")
        kept = Checkpoints(self._checkpoints, trial.id, self._every_s)
        return Member(trial, lambda report: emit((task.id, report)), kept)

    def _result(self, key: str, found: TrialResult | Exception) -> TrialResult | Failure:
        if isinstance(found, Exception):
            traceback.print_exception(found)
            return failure(found)
        return replace(found, artifacts=self._artifacts(key, found.artifacts))

    def _artifacts(self, key: str, given: Mapping[str, bytes]) -> dict[str, bytes]:
        """Large ones are left beside the checkpoints, and told by address and digest."""
        large, found = Folder(self._checkpoints, f"large/{key}"), {}
        for name, content in given.items():
            if len(content) <= LARGE:
                found[name] = content
                continue
            large.write(name, content)
            uri = shown(f"{self._checkpoints}/large/{key}/{name}")
            told = {
                "uri": uri,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            found[f"{name}.json"] = json.dumps(told, indent=2).encode()
        return found


@contextlib.contextmanager
def _logged(path: str, emit: Callable[[Log], None]) -> Iterator[None]:
    """Send all that this process prints into the file, what C++ prints as well."""
    where, mine = Path(path), None
    if not where.parent.is_dir():  # on another machine
        where = Path(tempfile.mkdtemp(prefix="masksweep-")) / where.name
        mine = where.parent
    saved = os.dup(1), os.dup(2)
    with where.open("ab") as file:
        start = file.tell()
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            with (
                os.fdopen(os.dup(1), "w", buffering=1) as text,
                contextlib.redirect_stdout(text),
                contextlib.redirect_stderr(text),
            ):
                try:
                    yield
                except BaseException:
                    traceback.print_exc()
                    raise
        finally:
            for number, original in enumerate(saved, start=1):
                os.dup2(original, number)
                os.close(original)
            printed = where.read_bytes()[start:][-LOG_BYTES:]
            if printed:
                emit(Log(printed.decode(errors="replace")))
            if mine:
                shutil.rmtree(mine, ignore_errors=True)
