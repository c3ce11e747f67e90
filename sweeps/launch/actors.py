"""The processes of a run on Ray: workers, and the mailbox where they leave their events."""

from __future__ import annotations

from typing import Any

from masksweep.sweeps.launch.cluster import Spec
from masksweep.sweeps.launch.job import Fatal, Work, failure

Letter = tuple[int, int, Any]
"""(run of a job, which of its events, the event)"""


class Mailbox:
    """Where workers leave their events; it outlives them, so none is lost with one.

    What is in it when it dies itself, the workers still have.
    """

    def __init__(self) -> None:
        self._letters: list[Letter] = []

    def put(self, letter: Letter) -> None:
        self._letters.append(letter)

    def take(self) -> list[Letter]:
        letters, self._letters = self._letters, []
        return letters


class Worker:
    def __init__(self, work: Work, spec: Spec) -> None:
        self._work = work
        self._emitted: list[Any] = []
        work.setup(spec)

    def ready(self) -> None:
        """Returns when the worker is set up."""

    def ask(self, method: str, given: Any) -> Any:
        """What this method of its work returns."""
        return getattr(self._work, method)(given)

    def emitted(self) -> list[Any]:
        """All events of its last job."""
        return self._emitted

    def run(self, number: int, payload: Any, mailbox: Any) -> tuple[int, Any]:
        """(number of events, result or Failure); the run is known by its number."""
        import ray

        last, self._emitted = None, []

        def emit(event: Any) -> None:
            nonlocal last
            last = mailbox.put.remote((number, len(self._emitted), event))
            self._emitted.append(event)
            if isinstance(event, Fatal):
                ray.get(last)

        try:
            result = self._work.run(payload, emit)
        except Exception as error:
            result = failure(error)
        if last is not None:
            ray.get(last)  # one caller's events arrive in order, and all before the result
        return len(self._emitted), result
