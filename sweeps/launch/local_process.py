"""Runs jobs one after the other in a process of this machine, without Ray."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Self

from masksweep.sweeps.common.child import Child, ChildDied
from masksweep.sweeps.launch.cluster import Spec
from masksweep.sweeps.launch.job import Failure, FatalEvent, Job, Watcher, Work, failure

POLL_SECONDS = 0.2


class LocalProcess:
    """Runs jobs as `Engine` does, but one after the other, in one child process for each spec.

    Args:
        work: What the child process does with a job.
    """

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
        """Runs the jobs, and returns when all of them have ended.

        A job whose process is lost runs again. If a job with parts raises `MustRunAlone`, or its
        process is lost, its parts are run as jobs of their own.

        Args:
            watcher: Is told when jobs start, emit events and end.
            jobs: The jobs to run, in this order.
            max_retries: How often a job is run again after its process was lost.
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
        """Runs one job, and returns its result or a `Failure`. Its events go to the watcher."""
        child, events = self._start(job.spec)
        fatal: list[FatalEvent] = []

        def deliver(patience_s: float = 0.0) -> bool:
            with suppress(EOFError, OSError):  # the process has died
                if events.poll(patience_s):
                    event = events.recv()
                    if isinstance(event, FatalEvent):
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
        except ChildDied:
            if fatal and not fatal[-1].retry:
                return Failure(fatal[-1].reason, fatal[-1].reason, fatal[-1].cause)
            reason = fatal[-1].reason if fatal else "its process ended"
            return Failure(reason, reason, "lost")

    def _start(self, spec: Spec) -> tuple[Child, Connection]:
        """Returns the process for a spec and the connection that receives its events."""
        if self._spec != spec or self._child is None or self._events is None:
            self._end()
            self._events, sending_end = multiprocessing.get_context("spawn").Pipe(duplex=False)
            self._child, self._spec = Child(_set_up, self._work, spec, sending_end), spec
            sending_end.close()
        return self._child, self._events

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
        if self._events is not None:
            self._events.close()
        self._child = self._events = None


# -- in the child process --------------------------------------------------------------------

_state: list[Any] = []
"""In the child process: the work, and the connection that sends its events."""


def _set_up(work: Work, spec: Spec, events: Connection) -> None:
    work.setup(spec)
    _state[:] = work, events


def _run(payload: Any) -> Any:
    work, events = _state
    try:
        return work.run(payload, events.send)
    except Exception as error:
        return failure(error)
