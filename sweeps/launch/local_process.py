"""Jobs one after the other in a process of this machine, without Ray."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Self

from masksweep.sweeps.common.child import Child, Lost
from masksweep.sweeps.launch.cluster import Spec
from masksweep.sweeps.launch.job import Failure, Fatal, Job, Watcher, Work, failure

POLL_SECONDS = 0.2


class LocalProcess:
    """Runs jobs as `Engine` does, without Ray: one after the other, in a process for each spec."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._spec: Spec | None = None
        self._child: Child | None = None
        self._events: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._end()

    def run(self, watcher: Watcher, jobs: Sequence[Job], *, max_retries: int = 1) -> None:
        """Run the jobs. One whose process is lost runs again, at most `max_retries` times.

        One with parts that raises `Apart`, or is lost, is run part by part.
        """
        waiting, retries = deque(jobs), dict[str, int]()
        while waiting:
            job = waiting.popleft()
            watcher.started(job.key, 0)
            result = self._run(watcher, job)
            if not isinstance(result, Failure):
                watcher.ended(job.key, result)
                continue
            if result.cause in ("lost", "memory"):
                self._end()
            if job.parts:
                if result.cause != "apart":
                    watcher.retried(job.key, result.reason)
                waiting.extendleft(reversed(job.parts))
            elif result.cause == "lost" and retries.get(job.key, 0) < max_retries:
                retries[job.key] = retries.get(job.key, 0) + 1
                watcher.retried(job.key, result.reason)
                waiting.appendleft(job)
            else:
                watcher.ended(job.key, result)

    def _run(self, watcher: Watcher, job: Job) -> Any:
        """The job's result, or why there is none; its events go to the watcher."""
        child, events = self._start(job.spec)
        fatal: list[Fatal] = []

        def deliver(patience_s: float = 0.0) -> bool:
            with suppress(EOFError, OSError):  # of a process that has died
                if events.poll(patience_s):
                    event = events.recv()
                    if isinstance(event, Fatal):
                        fatal.append(event)
                    else:
                        watcher.event(job.key, event)
                    return True
            return False

        future: Future[Any] = child.submit(_run, job.payload)
        while not future.done():
            deliver(POLL_SECONDS)
            watcher.tick()
        while deliver():
            pass
        try:
            return future.result()
        except Lost:
            if fatal and not fatal[-1].again:
                return Failure(fatal[-1].reason, fatal[-1].reason, fatal[-1].cause)
            reason = fatal[-1].reason if fatal else "its process ended"
            return Failure(reason, reason, "lost")

    def _start(self, spec: Spec) -> tuple[Child, Connection]:
        if self._spec != spec or self._child is None or self._events is None:
            self._end()
            self._events, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
            self._child, self._spec = Child(_set_up, self._work, spec, theirs), spec
            theirs.close()
        return self._child, self._events

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
        if self._events is not None:
            self._events.close()
        self._child = self._events = None


# -- in the process --------------------------------------------------------------------------

_state: list[Any] = []
"""The work, and where its events go."""


def _set_up(work: Work, spec: Spec, events: Connection) -> None:
    work.setup(spec)
    _state[:] = work, events


def _run(payload: Any) -> Any:
    work, events = _state
    try:
        return work.run(payload, events.send)
    except Exception as error:
        return failure(error)
