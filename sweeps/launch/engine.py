"""Runs jobs on Ray workers: each job ends once, after its events, even if workers die.

Nothing in this file depends on Hydra.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

from masksweep.sweeps.common.sweep_failed import SweepFailed
from masksweep.sweeps.launch.actors import EventQueue
from masksweep.sweeps.launch.cluster import Spec
from masksweep.sweeps.launch.head import EARLY_HEAD_PATIENCE_SECONDS, HEAD_PATIENCE_SECONDS, Head
from masksweep.sweeps.launch.job import Failure, FatalEvent, Job, Watcher, Work
from masksweep.sweeps.launch.pool import NoWorker, Pool, last_line

POLL_SECONDS = 0.2


@dataclass
class _Running:
    """One run of a job on a worker."""

    number: int
    """Of the run. A job that is run again gets a new number."""
    job: Job
    worker: int
    """The worker's number in the pool."""
    started_at: float
    """Start of the run, in seconds of `time.monotonic`."""
    timed_out: bool = False
    received: set[int] = field(default_factory=set)
    """Indices of the events that the watcher has received."""


def run(
    jobs: Sequence[Job],
    work: Work,
    watcher: Watcher,
    *,
    max_retries: int = 2,
    timeout_s: float | None = None,
    joined: bool = False,
) -> None:
    """Runs all jobs on the cluster that this process is connected to, with a new `Engine`.

    Args:
        jobs: The jobs to run.
        work: What the workers do with a job.
        watcher: Is told when jobs start, emit events and end.
        max_retries: How often a job is run again after its worker was lost.
        timeout_s: Seconds that a job of size 1 may take; None for no limit.
        joined: Whether the cluster was joined, not started here. It may have an autoscaler then.

    Raises:
        Invalid: No node can hold a worker for one of the jobs.
        SweepFailed: The cluster is gone.
    """
    with Engine(jobs, work, joined=joined) as engine:
        engine.run(watcher, jobs, max_retries=max_retries, timeout_s=timeout_s)


class Engine:
    """A context manager with workers on the cluster that this process is connected to.

    Workers are started on entering, as many as there is room for, so that they are ready when `run`
    gives them jobs. Entering raises `Invalid` if no node can hold a worker of one of the specs.

    Args:
        jobs: The jobs to come. Their specs decide which workers are started.
        work: What the workers do with a job.
        joined: Whether the cluster was joined, not started here. It may have an autoscaler then,
            which adds nodes for workers that wait for room.
    """

    def __init__(self, jobs: Sequence[Job], work: Work, *, joined: bool = False) -> None:
        self._work, self._watcher, self._joined = work, Watcher(), joined
        self._max_retries, self._timeout = 0, None  # type: int, float | None
        self._waiting: dict[Spec, deque[Job]] = {}
        for job in jobs:
            self._waiting.setdefault(job.spec, deque()).append(job)
        self._running: dict[Any, _Running] = {}
        self._retries: dict[str, int] = {}
        self._fatal: dict[str, FatalEvent] = {}
        self._run_count, self._delivered_at = 0, 0.0
        self._head, self._broken = Head(EARLY_HEAD_PATIENCE_SECONDS), False

    def __enter__(self) -> Self:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        with self._ray_errors():
            self._pool = Pool(list(self._waiting), self._work, self._joined)
            # on the driver's node, so that the loss of another node loses no events
            driver_node = ray.get_runtime_context().get_node_id()
            scheduling = NodeAffinitySchedulingStrategy(driver_node, soft=False)
            # restarted if it dies: when memory is low, Ray may kill it although it is small
            options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
            self._event_queue = ray.remote(scheduling_strategy=scheduling, **options)(
                EventQueue
            ).remote()
            self._start_workers()
        return self

    def __exit__(self, *_: Any) -> None:
        import ray

        if not self._broken:  # after a failure of Ray these calls could hang
            self._pool.end()
            ray.kill(self._event_queue)

    @contextmanager
    def _ray_errors(self) -> Iterator[None]:
        """Raises `SweepFailed` for an error of Ray, and notes not to call Ray any more."""
        import ray

        try:
            yield
        except (ray.exceptions.RayError, ConnectionError) as error:
            self._broken = True
            self._head.is_reachable()  # raises a SweepFailed that says what died, if something did
            raise SweepFailed(f"Ray failed: {last_line(error)}") from error
        except SweepFailed:
            self._broken = True
            raise

    def ask(self, method: str, argument: Any) -> Any:
        """Calls a method of the work in the first worker that is ready, and returns its result.

        Args:
            method: Name of the method.
            argument: The only argument of the method.

        Raises:
            LookupError: No worker can be set up, or the worker died.
            SweepFailed: The cluster is gone.
            Exception: Whatever the method raises.
        """
        import ray

        self._watcher = _RaisingWatcher()
        with self._ray_errors():
            ready: list[tuple[Spec, int]] = []
            while not ready:
                self._start_workers()
                self._wait()
                idle = ((spec, self._pool.idle(spec)) for spec in self._waiting)
                ready = [(spec, number) for spec, number in idle if number is not None]
            answer = self._pool.actor(*ready[0]).ask.remote(method, argument)
            while not ray.wait([answer], timeout=POLL_SECONDS)[0]:
                self._head.is_reachable()
            try:
                return ray.get(answer)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
            except ray.exceptions.RayError as error:
                self._head.wait()  # raises SweepFailed if the head is lost as well
                raise LookupError(last_line(error)) from error
        raise cause from None

    def run(
        self,
        watcher: Watcher,
        jobs: Sequence[Job],
        *,
        max_retries: int = 2,
        timeout_s: float | None = None,
    ) -> None:
        """Runs the jobs, and returns when all of them have ended.

        A job whose worker or node is lost runs again, at most `max_retries` times. A job that
        raises, or takes too long, fails. If a job with parts raises `MustRunAlone`, or its worker
        is lost too often, its parts are run as jobs of their own.

        Args:
            watcher: Is told when jobs start, emit events and end.
            jobs: Jobs with the specs that the engine was made with.
            max_retries: How often a job is run again after its worker was lost.
            timeout_s: Seconds that a job of size 1 may take; None for no limit.

        Raises:
            SweepFailed: The cluster is gone.
        """
        with self._ray_errors():
            self._run(watcher, jobs, max_retries, timeout_s)

    def _run(
        self, watcher: Watcher, jobs: Sequence[Job], max_retries: int, timeout_s: float | None
    ) -> None:
        self._watcher, self._max_retries, self._timeout = watcher, max_retries, timeout_s
        self._head = Head(HEAD_PATIENCE_SECONDS)
        for spec in self._waiting:
            self._waiting[spec] = deque(job for job in jobs if job.spec == spec)
        while self._running or any(self._waiting.values()):
            self._start_workers()
            self._dispatch()
            ended = self._wait()
            if time.monotonic() - self._delivered_at > POLL_SECONDS:
                self._deliver()
                self._expire()
                self._watcher.tick()
            for ref in ended:
                self._finish(ref)
        self._pool.end()  # now, because a report or a slow store may follow

    # -- workers -------------------------------------------------------------------------------

    def _start_workers(self) -> None:
        """Starts workers for the jobs that have not ended, where the cluster has room."""
        if not self._head.is_reachable():
            return
        job_counts = Counter({spec: len(jobs) for spec, jobs in self._waiting.items()})
        job_counts.update(run.job.spec for run in self._running.values())
        self._give_up(self._pool.start_missing(job_counts))

    def _wait(self) -> list[Any]:
        """Waits up to `POLL_SECONDS` for workers and jobs. Returns the jobs that ended, by ref."""
        import ray

        starting = self._pool.starting
        refs = [*self._running, *starting]
        if not refs:
            time.sleep(POLL_SECONDS)
            return []
        returned, _ = ray.wait(refs, timeout=POLL_SECONDS)
        for ref in set(returned) & set(starting):
            self._give_up(self._pool.set_up(ref))
        return [ref for ref in returned if ref in self._running]

    def _give_up(self, unavailable: Iterable[NoWorker]) -> None:
        """Ends all waiting jobs of the specs for which no worker can be had."""
        for spec, failure in unavailable:
            while self._waiting[spec]:
                self._watcher.ended(self._waiting[spec].popleft().key, failure)

    # -- jobs ----------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Gives the waiting jobs to idle workers."""
        for spec, jobs in self._waiting.items():
            while jobs and (worker := self._pool.idle(spec)) is not None:
                job, actor = jobs.popleft(), self._pool.take(spec, worker)
                self._watcher.started(job.key, worker)
                self._run_count += 1
                ref = actor.run.remote(self._run_count, job.payload, self._event_queue)
                self._running[ref] = _Running(self._run_count, job, worker, time.monotonic())
            if not jobs:
                self._pool.release(spec)

    def _deliver(self) -> None:
        """Passes the queued events to the watcher."""
        import ray

        self._delivered_at = time.monotonic()
        running = {r.number: r for r in self._running.values()}
        for run, number, event in ray.get(self._event_queue.take.remote()):
            if run in running:  # not from a worker that was given up
                self._receive(running[run], number, event)

    def _receive(self, run: _Running, number: int, event: Any) -> None:
        """Passes one event to the watcher, unless the watcher has received it already."""
        if number in run.received:
            return
        run.received.add(number)
        if isinstance(event, FatalEvent):
            self._fatal[run.job.key] = event
        else:
            self._watcher.event(run.job.key, event)

    def _expire(self) -> None:
        """Ends the jobs that took too long, by killing their workers."""
        import ray

        for run in self._running.values():
            seconds = time.monotonic() - run.started_at
            late = self._timeout and seconds > self._timeout * run.job.size
            if late and not run.timed_out:
                run.timed_out = True
                ray.kill(self._pool.actor(run.job.spec, run.worker))

    def _finish(self, ref: Any) -> None:
        """Handles a job whose run has returned or whose worker is lost."""
        import ray

        run, emitted = self._running[ref], math.inf
        try:
            emitted, result = ray.get(ref)
        except ray.exceptions.RayTaskError as error:  # for example, its result cannot be pickled
            result = Failure(last_line(error), str(error))
        except ray.exceptions.RayError as error:  # all other errors mean a lost worker
            self._deliver()
            del self._running[ref]
            self._pool.replace(run.job.spec, run.worker)
            self._lost(run, str(error))
            return
        if emitted > len(run.received):
            self._deliver()
        if emitted > len(run.received):  # the event_queue died with some events
            with suppress(ray.exceptions.RayError):
                actor = self._pool.actor(run.job.spec, run.worker)
                for number, event in enumerate(ray.get(actor.emitted.remote())):
                    self._receive(run, number, event)
        del self._running[ref]
        if run.timed_out:  # the worker has been killed all the same
            self._pool.replace(run.job.spec, run.worker)
        else:
            self._pool.give_back(run.job.spec, run.worker)
        if isinstance(result, Failure) and result.cause == "apart" and run.job.parts:
            self._queue_parts(run.job)
        else:
            self._end(run.job.key, result)

    def _queue_parts(self, job: Job) -> None:
        """Queues the parts of a job instead of the job."""
        self._retries.pop(job.key, None)
        self._waiting[job.spec].extend(job.parts)

    def _lost(self, run: _Running, message: str) -> None:
        """Decides whether a job whose worker was lost runs again, in parts, or fails."""
        key = run.job.key
        fatal = self._fatal.pop(key, None)
        if fatal and fatal.retry:
            self._queue_again(run.job, fatal.reason)
        elif fatal:
            self._end(key, Failure(fatal.reason, message, fatal.cause))
        elif run.timed_out:
            limit = (self._timeout or 0) * run.job.size
            reason = f"timed out: took longer than {limit:g} s"
            self._end(key, Failure(reason, message, "timeout"))
        else:
            memory = "running low on memory" in message
            reason = "out of memory on its node" if memory else "worker died"
            losses = self._retries[key] = self._retries.get(key, 0) + 1
            if losses <= self._max_retries:
                self._queue_again(run.job, reason)
            elif run.job.parts:  # to see which part kills its worker
                self._watcher.retried(key, reason)
                self._queue_parts(run.job)
            else:
                reason = f"{reason}, {losses} times" if losses > 1 else reason
                self._end(key, Failure(reason, message, "memory" if memory else "lost"))

    def _queue_again(self, job: Job, reason: str) -> None:
        self._watcher.retried(job.key, reason)
        self._waiting[job.spec].appendleft(job)

    def _end(self, key: str, result: Any) -> None:
        self._retries.pop(key, None)
        self._watcher.ended(key, result)


class _RaisingWatcher(Watcher):
    """Raises `LookupError` when a job ends, that is, when no worker can be set up for it."""

    def ended(self, key: str, result: Any) -> None:
        raise LookupError(result.reason)
