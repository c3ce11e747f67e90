"""The Ray actors of a run: the workers, and the queue of their events."""

from __future__ import annotations

from typing import Any

from masksweep.sweeps.launch.cluster import Spec
from masksweep.sweeps.launch.job import FatalEvent, Work, failure

NumberedEvent = tuple[int, int, Any]
"""(number of the run of a job, index of the event in this run, the event)"""


class EventQueue:
    """A queue for the events of all workers, held by an actor on the driver's node.

    Events survive the death of a worker, because the queue does not live in the worker. If the
    queue itself dies, the engine reads the lost events from `Worker.emitted`.
    """

    def __init__(self) -> None:
        self._events: list[NumberedEvent] = []

    def put(self, event: NumberedEvent) -> None:
        """Adds an event to the queue."""
        self._events.append(event)

    def take(self) -> list[NumberedEvent]:
        """Returns all events in the queue, and empties it."""
        events, self._events = self._events, []
        return events


class Worker:
    """An actor that sets up the work once, and then runs one job at a time."""

    def __init__(self, work: Work, spec: Spec) -> None:
        self._work = work
        self._emitted: list[Any] = []
        work.setup(spec)

    def ready(self) -> None:
        """Does nothing. It returns once `__init__` has set up the worker."""

    def ask(self, method: str, argument: Any) -> Any:
        """Calls a method of the work and returns its result."""
        return getattr(self._work, method)(argument)

    def emitted(self) -> list[Any]:
        """Returns all events of the worker's last job, in order."""
        return self._emitted

    def run(self, number: int, payload: Any, event_queue: Any) -> tuple[int, Any]:
        """Runs one job.

        Args:
            number: Identifies this run of the job. A job that is run again gets a new number.
            payload: The job's payload, for the `run` method of the work.
            event_queue: Handle of the `EventQueue` actor.

        Returns:
            The number of emitted events, and the job's result or a `Failure`.
        """
        import ray

        last, self._emitted = None, []

        def emit(event: Any) -> None:
            nonlocal last
            last = event_queue.put.remote((number, len(self._emitted), event))
            self._emitted.append(event)
            if isinstance(event, FatalEvent):
                ray.get(last)

        try:
            result = self._work.run(payload, emit)
        except Exception as error:
            result = failure(error)
        if last is not None:
            ray.get(last)  # one actor's calls arrive in order: now all events are there
        return len(self._emitted), result
