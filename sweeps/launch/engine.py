"""Jobs on Ray: each ends once, with its events, whatever happens to a worker. Knows no Hydra."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

from masksweep.sweeps.common.broken import Broken
from masksweep.sweeps.launch.actors import Mailbox
from masksweep.sweeps.launch.cluster import Spec
from masksweep.sweeps.launch.head import EARLY_SECONDS, HEAD_SECONDS, Head
from masksweep.sweeps.launch.job import Failure, Fatal, Job, Watcher, Work
from masksweep.sweeps.launch.pool import Hopeless, Pool, last_line

POLL_SECONDS = 0.2


@dataclass
class _Running:
    number: int
    job: Job
    worker: int
    since: float
    timed_out: bool = False
    heard: set[int] = field(default_factory=set)
    """Which of its events were delivered."""


def run(
    jobs: Sequence[Job],
    work: Work,
    watcher: Watcher,
    *,
    max_retries: int = 2,
    timeout_s: float | None = None,
    joined: bool = False,
) -> None:
    """Run every job on the cluster that this process is connected to; see `Engine`."""
    with Engine(jobs, work, joined=joined) as engine:
        engine.run(watcher, jobs, max_retries=max_retries, timeout_s=timeout_s)


class Engine:
    """Workers on the cluster that this process is connected to, while it is entered.

    They are started on entering, wherever there is room, so that they are ready when `run` gives
    them jobs. Entering raises `Invalid` if no node can satisfy a spec. A cluster that was `joined`,
    not started here, may have an autoscaler, which adds nodes for the workers that wait for room.
    """

    def __init__(self, jobs: Sequence[Job], work: Work, *, joined: bool = False) -> None:
        self._work, self._watcher, self._joined = work, Watcher(), joined
        self._max_retries, self._timeout = 0, None  # type: int, float | None
        self._waiting: dict[Spec, deque[Job]] = {}
        for job in jobs:
            self._waiting.setdefault(job.spec, deque()).append(job)
        self._running: dict[Any, _Running] = {}
        self._retries: dict[str, int] = {}
        self._fatal: dict[str, Fatal] = {}
        self._runs, self._took = 0, 0.0
        self._head, self._broken = Head(EARLY_SECONDS), False

    def __enter__(self) -> Self:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        with self._of_ray():
            self._pool = Pool(list(self._waiting), self._work, self._joined)
            # beside the driver: a node that is lost must not take the events of others along
            here = ray.get_runtime_context().get_node_id()
            scheduling = NodeAffinitySchedulingStrategy(here, soft=False)
            # it holds little, but that does not save it where Ray ends workers for memory
            options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
            self._mailbox = ray.remote(scheduling_strategy=scheduling, **options)(Mailbox).remote()
            self._look()
        return self

    def __exit__(self, *_: Any) -> None:
        import ray

        if not self._broken:  # else these calls would wait for who cannot answer
            self._pool.end()
            ray.kill(self._mailbox)

    @contextmanager
    def _of_ray(self) -> Iterator[None]:
        """Raise `Broken` where Ray fails; from then on nothing is asked of it."""
        import ray

        try:
            yield
        except (ray.exceptions.RayError, ConnectionError) as error:
            self._broken = True
            self._head.answers()  # says what died, if that is the reason
            raise Broken(f"Ray failed: {last_line(error)}") from error
        except Broken:
            self._broken = True
            raise

    def ask(self, method: str, given: Any) -> Any:
        """What a method of the work returns in the first worker that is ready.

        Raises what the method raises; `LookupError` if no worker can be set up, or it dies;
        `Broken` if the cluster is gone.
        """
        import ray

        self._watcher = _Raises()
        with self._of_ray():
            ready: list[tuple[Spec, int]] = []
            while not ready:
                self._look()
                self._wait()
                found = ((spec, self._pool.idle(spec)) for spec in self._waiting)
                ready = [(spec, number) for spec, number in found if number is not None]
            answer = self._pool.actor(*ready[0]).ask.remote(method, given)
            while not ray.wait([answer], timeout=POLL_SECONDS)[0]:
                self._head.answers()
            try:
                return ray.get(answer)
            except ray.exceptions.RayTaskError as error:
                failed = error.cause
            except ray.exceptions.RayError as error:
                self._head.wait()  # which may have taken the worker along
                raise LookupError(last_line(error)) from error
        raise failed from None

    def run(
        self,
        watcher: Watcher,
        jobs: Sequence[Job],
        *,
        max_retries: int = 2,
        timeout_s: float | None = None,
    ) -> None:
        """Run the jobs, of specs that workers were started for.

        A job whose worker or node is lost runs again, at most `max_retries` times; one that
        raises, or takes longer than `timeout_s`, fails. One with parts that raises `Apart`, or is
        lost too often, is run part by part. Raises `Broken` if the cluster is gone.
        """
        with self._of_ray():
            self._run(watcher, jobs, max_retries, timeout_s)

    def _run(
        self, watcher: Watcher, jobs: Sequence[Job], max_retries: int, timeout_s: float | None
    ) -> None:
        self._watcher, self._max_retries, self._timeout = watcher, max_retries, timeout_s
        self._head = Head(HEAD_SECONDS)
        for spec in self._waiting:
            self._waiting[spec] = deque(job for job in jobs if job.spec == spec)
        while self._running or any(self._waiting.values()):
            self._look()
            self._dispatch()
            done = self._wait()
            if time.monotonic() - self._took > POLL_SECONDS:
                self._deliver()
                self._expire()
                self._watcher.tick()
            for ref in done:
                self._finish(ref)
        self._pool.end()  # a report may follow, and a store that is slow

    # -- workers -------------------------------------------------------------------------------

    def _look(self) -> None:
        if not self._head.answers():
            return
        wanted = Counter({spec: len(jobs) for spec, jobs in self._waiting.items()})
        wanted.update(run.job.spec for run in self._running.values())
        self._give_up(self._pool.look(wanted))

    def _wait(self) -> list[Any]:
        """Wait a little for workers and jobs; those that ended of the latter."""
        import ray

        starting = self._pool.starting
        refs = [*self._running, *starting]
        if not refs:
            time.sleep(POLL_SECONDS)
            return []
        done, _ = ray.wait(refs, timeout=POLL_SECONDS)
        for ref in set(done) & set(starting):
            self._give_up(self._pool.set_up(ref))
        return [ref for ref in done if ref in self._running]

    def _give_up(self, hopeless: Iterable[Hopeless]) -> None:
        for spec, failure in hopeless:
            while self._waiting[spec]:
                self._watcher.ended(self._waiting[spec].popleft().key, failure)

    # -- jobs ----------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        for spec, jobs in self._waiting.items():
            while jobs and (worker := self._pool.idle(spec)) is not None:
                job, actor = jobs.popleft(), self._pool.take(spec, worker)
                self._watcher.started(job.key, worker)
                self._runs += 1
                ref = actor.run.remote(self._runs, job.payload, self._mailbox)
                self._running[ref] = _Running(self._runs, job, worker, time.monotonic())
            if not jobs:
                self._pool.release(spec)

    def _deliver(self) -> None:
        import ray

        self._took = time.monotonic()
        running = {r.number: r for r in self._running.values()}
        for run, number, event in ray.get(self._mailbox.take.remote()):
            if run in running:  # its worker was not given up
                self._hear(running[run], number, event)

    def _hear(self, run: _Running, number: int, event: Any) -> None:
        if number in run.heard:
            return
        run.heard.add(number)
        if isinstance(event, Fatal):
            self._fatal[run.job.key] = event
        else:
            self._watcher.event(run.job.key, event)

    def _expire(self) -> None:
        """End the jobs that took too long, by ending their workers."""
        import ray

        for run in self._running.values():
            late = self._timeout and time.monotonic() - run.since > self._timeout * run.job.size
            if late and not run.timed_out:
                run.timed_out = True
                ray.kill(self._pool.actor(run.job.spec, run.worker))

    def _finish(self, ref: Any) -> None:
        import ray

        run, emitted = self._running[ref], math.inf
        try:
            emitted, result = ray.get(ref)
        except ray.exceptions.RayTaskError as error:  # its result cannot travel, among others
            result = Failure(last_line(error), str(error))
        except ray.exceptions.RayError as error:  # every other says that the worker is gone
            self._deliver()
            del self._running[ref]
            self._pool.replace(run.job.spec, run.worker)
            self._lost(run, str(error))
            return
        if emitted > len(run.heard):
            self._deliver()
        if emitted > len(run.heard):  # the mailbox was lost, with what was in it
            with suppress(ray.exceptions.RayError):
                actor = self._pool.actor(run.job.spec, run.worker)
                for number, event in enumerate(ray.get(actor.emitted.remote())):
                    self._hear(run, number, event)
        del self._running[ref]
        if run.timed_out:  # it was ended all the same
            self._pool.replace(run.job.spec, run.worker)
        else:
            self._pool.give_back(run.job.spec, run.worker)
        if isinstance(result, Failure) and result.cause == "apart" and run.job.parts:
            self._apart(run.job)
        else:
            self._end(run.job.key, result)

    def _apart(self, job: Job) -> None:
        self._retries.pop(job.key, None)
        self._waiting[job.spec].extend(job.parts)

    def _lost(self, run: _Running, said: str) -> None:
        key = run.job.key
        fatal = self._fatal.pop(key, None)
        if fatal and fatal.again:
            self._again(run.job, fatal.reason)
        elif fatal:
            self._end(key, Failure(fatal.reason, said, fatal.cause))
        elif run.timed_out:
            limit = (self._timeout or 0) * run.job.size
            reason = f"timed out: took longer than {limit:g} s"
            self._end(key, Failure(reason, said, "timeout"))
        else:
            memory = "running low on memory" in said
            reason = "out of memory on its node" if memory else "worker died"
            tried = self._retries[key] = self._retries.get(key, 0) + 1
            if tried <= self._max_retries:
                self._again(run.job, reason)
            elif run.job.parts:  # which of them it was will be seen
                self._watcher.retried(key, reason)
                self._apart(run.job)
            else:
                reason = f"{reason}, {tried} times" if tried > 1 else reason
                self._end(key, Failure(reason, said, "memory" if memory else "lost"))

    def _again(self, job: Job, reason: str) -> None:
        self._watcher.retried(job.key, reason)
        self._waiting[job.spec].appendleft(job)

    def _end(self, key: str, result: Any) -> None:
        self._retries.pop(key, None)
        self._watcher.ended(key, result)


class _Raises(Watcher):
    def ended(self, key: str, result: Any) -> None:
        raise LookupError(result.reason)
