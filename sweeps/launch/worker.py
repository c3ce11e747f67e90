"""The work of a sweep's workers: they run trials, and write a log for each job."""

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

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.limits import MAX_SENT_ARTIFACT_BYTES
from masksweep.sweeps.common.redact import redact
from masksweep.sweeps.common.storage import Folder
from masksweep.sweeps.components import plugins
from masksweep.sweeps.components.named_files import with_files
from masksweep.sweeps.config.trial import Trial, parse, recorded_config
from masksweep.sweeps.launch.cluster import Spec
from masksweep.sweeps.launch.job import Emit, Failure, FatalEvent, failure
from masksweep.sweeps.results import MustRunAlone, TrialResult
from masksweep.sweeps.training.state import PackMember

if TYPE_CHECKING:
    from masksweep.sweeps.results import PreflightAnswer

MAX_LOG_BYTES = 2**20
"""Bytes from the end of a log that are sent to the driver."""


@dataclass(frozen=True)
class Log:
    """An event: what a trial printed."""

    text: str


@dataclass(frozen=True)
class Task:
    """One trial in the form that is sent to a worker."""

    id: str
    config: Mapping[str, object]
    log: str
    """Path of the log file, used if the worker can see its folder."""

    @classmethod
    def of(cls, trial: Trial, log: Path) -> Task:
        """Returns the task for a trial whose log goes to this path."""
        return cls(trial.id, portable_config(trial), str(log.absolute()))


def portable_config(trial: Trial) -> dict[str, Any]:
    """Returns the trial's config with absolute paths: a worker has another current folder."""
    return with_files(recorded_config(trial), lambda _, path: str(Path(path).absolute()))


class TrialWork:
    """The `Work` that runs trials. It has the plugins that this process has loaded.

    Args:
        checkpoints: Folder or fsspec URI for checkpoints, which all workers can reach.
        every_s: Seconds between two checkpoints of a trial.
    """

    def __init__(self, checkpoints: str, every_s: float) -> None:
        self._checkpoints, self._every_s = checkpoints, every_s
        self._plugins = plugins.loaded()
        self._trials = 0

    def setup(self, spec: Spec) -> None:
        """Sets up TensorFlow for the resources of this worker, and loads the plugins."""
        from masksweep.sweeps.training.process import prepare_process

        self._memory = spec.memory
        prepare_process(spec.threads, spec.num_gpus)
        for plugin in self._plugins:
            plugins.load(plugin)

    def refusals(self, configs: Sequence[Mapping[str, object]]) -> Sequence[PreflightAnswer]:
        """Says whether the strategy of each trial refuses its plan; see `preflight.check_plans`."""
        from masksweep.sweeps.training.preflight import check_plans

        return check_plans([parse(config) for config in configs])

    def run(
        self, payload: Sequence[Task], emit: Emit
    ) -> dict[str, TrialResult | Failure] | Failure:
        """Runs one trial, or several trials side by side in one program.

        Args:
            payload: The trials.
            emit: Is called with `(trial id, event)`.

        Returns:
            The result or `Failure` of each trial by its id; or one `Failure` with the cause
            `apart`, if the trials cannot run side by side.
        """
        from masksweep.sweeps.common import memory
        from masksweep.sweeps.training import pack

        def out_of_memory(reason: str) -> None:
            # earlier trials may have filled the memory: compiled programs are kept for later ones
            emit(FatalEvent(reason, "memory", retry=self._trials > 1))
            os._exit(137)

        def log(event: Log) -> None:
            for task in payload:
                emit((task.id, event))

        self._trials += 1
        results: dict[str, TrialResult | Failure] = {}
        with _output_to_log(payload[0].log, log), memory.limit(self._memory, out_of_memory):
            members: list[PackMember] = []
            for task in payload:
                try:
                    members.append(self._member(task, emit))
                except Invalid as error:
                    results[task.id] = failure(error)
            try:
                pack_results = pack.run(members, Folder(self._checkpoints, "rounds"))
            except MustRunAlone as error:
                return failure(error)
            for member, result in zip(members, pack_results, strict=True):
                try:
                    results[member.trial.id] = self._result(member.trial.id, result)
                except Exception as error:  # for example, large files cannot be stored
                    results[member.trial.id] = failure(error)
        return results

    def _member(self, task: Task, emit: Emit) -> PackMember:
        from masksweep.sweeps.training.checkpoint import Checkpoints

        trial = parse(task.config)
        if trial.id != task.id:
            raise Invalid(
                "trial", task.id[:12], "its file of masks, held values or data has changed since"
            )
        checkpoints = Checkpoints(self._checkpoints, trial.id, self._every_s)
        return PackMember(trial, lambda report: emit((task.id, report)), checkpoints)

    def _result(self, key: str, result: TrialResult | Exception) -> TrialResult | Failure:
        if isinstance(result, Exception):
            traceback.print_exception(result)
            return failure(result)
        return replace(result, artifacts=self._artifacts(key, result.artifacts))

    def _artifacts(self, key: str, artifacts: Mapping[str, bytes]) -> dict[str, bytes]:
        """Stores large artifacts beside the checkpoints, and replaces them by URI and digest."""
        large, sent = Folder(self._checkpoints, f"large/{key}"), {}
        for name, content in artifacts.items():
            if len(content) <= MAX_SENT_ARTIFACT_BYTES:
                sent[name] = content
                continue
            large.write(name, content)
            uri = redact(f"{self._checkpoints}/large/{key}/{name}")
            reference = {
                "uri": uri,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            sent[f"{name}.json"] = json.dumps(reference, indent=2).encode()
        return sent


def log_tail(path: Path, start: int = 0) -> bytes:
    """Returns what a log has from byte `start` on, at most its last `MAX_LOG_BYTES`."""
    with path.open("rb") as file:
        file.seek(max(start, path.stat().st_size - MAX_LOG_BYTES))
        return file.read(MAX_LOG_BYTES)


@contextlib.contextmanager
def _output_to_log(path: str, emit: Callable[[Log], None]) -> Iterator[None]:
    """Redirects all output of this process to a file, including the output of C++ code.

    The output is emitted as a `Log` at the end.

    Args:
        path: The log file. If its folder is not on this machine, a temporary file is used.
        emit: Is called with the log, if there is any output.
    """
    log_path, own_folder = Path(path), None
    if not log_path.parent.is_dir():  # the worker is on another machine
        log_path = Path(tempfile.mkdtemp(prefix="masksweep-")) / log_path.name
        own_folder = log_path.parent
    saved = os.dup(1), os.dup(2)
    with log_path.open("ab") as file:
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
            printed = log_tail(log_path, start)
            if printed:
                emit(Log(printed.decode(errors="replace")))
            if own_folder:
                shutil.rmtree(own_folder, ignore_errors=True)
