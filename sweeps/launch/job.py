"""A job: what it ends with, who does it, who watches it. Loads no Ray."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from masksweep.sweeps.launch.cluster import Spec
from masksweep.sweeps.results import FailureCause, TrialFailure


@dataclass(frozen=True)
class Job:
    key: str
    payload: Any
    spec: Spec
    size: int = 1
    """How many times as long as others it may take."""
    parts: tuple[Job, ...] = ()
    """What is run in its stead, if its worker is lost too often."""


@dataclass(frozen=True)
class Failure:
    """A job that ended without a result."""

    reason: str
    """One line."""
    traceback: str
    cause: FailureCause = "raised"


def failure(error: Exception) -> Failure:
    """What an exception amounts to."""
    said = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    told = "".join(traceback.format_exception(error))
    if isinstance(error, TrialFailure):
        return Failure(str(error), told, error.cause)
    if type(error).__name__ in ("MemoryError", "ResourceExhaustedError"):
        return Failure(f"out of memory: {said}", told, "memory")
    return Failure(said, told)


Emit = Callable[[Any], None]


class Work(Protocol):
    """What the workers do. Travels to them by pickle."""

    def setup(self, spec: Spec) -> None:
        """Once in each worker, before its first job."""

    def run(self, payload: Any, emit: Emit) -> Any:
        """One job; what it returns goes to `ended`, what it emits to `event`.

        An exception may name its `cause`; then its message is the reason of the `Failure`. A
        `Fatal` that is emitted says why the process is about to end, and whether to try again.
        """


@dataclass(frozen=True)
class Fatal:
    """The last event of a process that ends itself."""

    reason: str
    cause: FailureCause
    again: bool = False
    """Whether the job is no reason for it, and should be run in a new process."""


class Watcher:
    """What a sweep does as its jobs go on. Any of these may raise: that ends the whole run."""

    def started(self, key: str, worker: int) -> None:
        """A worker, by its number from 0, has been given the job."""

    def event(self, key: str, event: Any) -> None:
        """The job emitted this. Comes once more from a job that is run again."""

    def retried(self, key: str, reason: str) -> None:
        """The job's worker was lost; it will be given to another one."""

    def ended(self, key: str, result: Any) -> None:
        """The job's result or `Failure`, once, after its events."""

    def tick(self) -> None:
        """Called several times a second."""
