"""The processes of a run on Ray: workers, and the mailbox where they leave their events."""

from __future__ import annotations

import traceback
from typing import Any

from sweeps.cluster import Spec
from sweeps.job import Cause, Failure, Fatal, Work


class Mailbox:
    """Where workers leave their events; it outlives them, so none is lost with one."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = []

    def put(self, key: str, event: Any) -> None:
        self._events.append((key, event))

    def take(self) -> list[tuple[str, Any]]:
        events, self._events = self._events, []
        return events


class Worker:
    def __init__(self, work: Work, spec: Spec) -> None:
        self._work = work
        work.setup(spec)

    def ready(self) -> None:
        """Returns when the worker is set up."""

    def ask(self, method: str, given: Any) -> Any:
        """What this method of its work returns."""
        return getattr(self._work, method)(given)

    def run(self, key: str, payload: Any, mailbox: Any) -> tuple[bool, Any]:
        """(whether there were events, result or Failure)."""
        import ray

        last: Any = None

        def emit(event: Any) -> None:
            nonlocal last
            last = mailbox.put.remote(key, event)
            if isinstance(event, Fatal):
                ray.get(last)

        try:
            result = self._work.run(payload, emit)
        except Exception as error:
            said = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
            short = type(error).__name__ in ("MemoryError", "ResourceExhaustedError")
            cause: Cause = "memory" if short else "raised"
            reason = f"out of memory: {said}" if short else said
            if named := getattr(error, "cause", None):
                reason, cause = str(error), named
            result = Failure(reason, traceback.format_exc(), cause)
        if last is not None:
            ray.get(last)  # one caller's events arrive in order, and all before the result
        return last is not None, result
