"""Jobs, their failures, the work that runs a job, and the watcher that is told of it.

Importing this file does not import Ray.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from masksweep.sweeps.launch.cluster import Spec
from masksweep.sweeps.results import FailureCause, TrialFailure


@dataclass(frozen=True)
class Job:
    """What one worker does in one call."""

    key: str
    """Identifies the job among those of a run."""
    payload: Any
    """The argument of `Work.run`; it must be picklable."""
    spec: Spec
    size: int = 1
    """Factor on the time limit; the number of trials in the job."""
    parts: tuple[Job, ...] = ()
    """Jobs to run instead, if this one raises `MustRunAlone` or its worker is lost too often."""


@dataclass(frozen=True)
class Failure:
    """A job that ended without a result."""

    reason: str
    """One line."""
    traceback: str
    cause: FailureCause = "raised"


def failure(error: Exception) -> Failure:
    """Returns the `Failure` of a job that raised this exception."""
    summary = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, TrialFailure):
        return Failure(str(error), trace, error.cause)
    if type(error).__name__ in ("MemoryError", "ResourceExhaustedError"):
        return Failure(f"out of memory: {summary}", trace, "memory")
    return Failure(summary, trace)


Emit = Callable[[Any], None]


class Work(Protocol):
    """What the workers do with a job. The object is pickled and sent to each worker."""

    def setup(self, spec: Spec) -> None:
        """Called once in each worker, before its first job."""

    def run(self, payload: Any, emit: Emit) -> Any:
        """Runs one job.

        An exception becomes a `Failure`. If it is a `TrialFailure`, its `cause` is used, and its
        message is the reason.

        Args:
            payload: The payload of the job.
            emit: Sends an event to `Watcher.event`. A `FatalEvent` announces that the process is
                about to end.

        Returns:
            The result, for `Watcher.ended`.
        """


@dataclass(frozen=True)
class FatalEvent:
    """The last event of a process that is about to end itself."""

    reason: str
    cause: FailureCause
    retry: bool = False
    """Whether earlier jobs may be the reason, so that this job should run in a new process."""


class Watcher:
    """Callbacks of a run, which do nothing here. An exception in one of them ends the whole run."""

    def started(self, key: str, worker: int) -> None:
        """The job was given to a worker. Workers are numbered from 0."""

    def event(self, key: str, event: Any) -> None:
        """The job emitted an event. A job that is run again emits its events again."""

    def retried(self, key: str, reason: str) -> None:
        """The job's worker was lost, and the job will be run again or in parts."""

    def ended(self, key: str, result: Any) -> None:
        """The job ended with a result or a `Failure`. Called once, after all events of the job."""

    def tick(self) -> None:
        """Called several times a second."""
