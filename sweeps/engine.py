"""Jobs on Ray: long-lived workers, one job at a time each, events on the way. Knows no Hydra."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from strategies.base import Invalid
from sweeps.actors import Mailbox, Worker
from sweeps.cluster import Spec, slots
from sweeps.job import Failure, Fatal, Job, Watcher, Work

POLL_SECONDS = 0.2
LOOK_SECONDS = 5.0
"""How often nodes that joined or left are looked for."""
SET_UP_TRIES = 3
"""Workers in a row that may fail to start while none is at work."""
PATIENCE_SECONDS = 60.0
"""How long jobs wait for a node when the last one that could run them is lost."""


@dataclass
class _Running:
    number: int
    job: Job
    worker: int
    since: float
    timed_out: bool = False
    heard: set[int] = field(default_factory=set)
    """Which of its events were delivered."""


@dataclass
class _Group:
    """The jobs of one spec and their workers, by number."""

    spec: Spec
    waiting: deque[Job]
    actors: dict[int, Any] = field(default_factory=dict)
    idle: list[int] = field(default_factory=list)
    broken: int = 0
    """Workers in a row that could not be set up."""
    homeless_since: float | None = None
    """When the last node was lost that could run them."""


def run(
    jobs: Sequence[Job],
    work: Work,
    watcher: Watcher,
    *,
    max_retries: int = 2,
    timeout_s: float | None = None,
) -> None:
    """Run every job on the cluster that this process is connected to; see `Engine`."""
    with Engine(jobs, work) as engine:
        engine.run(watcher, max_retries=max_retries, timeout_s=timeout_s)


class Engine:
    """Workers on the cluster that this process is connected to, while it is entered.

    They are started on entering, wherever there is room, so that they are ready when `run` gives
    them jobs. Entering raises `Invalid` if the cluster can never satisfy a spec.
    """

    def __init__(self, jobs: Sequence[Job], work: Work) -> None:
        self._work, self._watcher = work, Watcher()
        self._max_retries, self._timeout = 0, None  # type: int, float | None
        self._groups: dict[Spec, _Group] = {}
        for job in jobs:
            self._groups.setdefault(job.spec, _Group(job.spec, deque())).waiting.append(job)
        self._starting: dict[Any, tuple[_Group, int]] = {}
        self._running: dict[Any, _Running] = {}
        self._retries: dict[str, int] = {}
        self._fatal: dict[str, Fatal] = {}
        self._workers = self._runs = 0
        self._looked = self._took = 0.0

    def __enter__(self) -> Self:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        for spec in self._groups:
            slots(spec)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # beside the driver: a node that is lost must not take the events of others along
        # it holds little, but that does not save it where Ray ends workers for memory
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        self._mailbox = ray.remote(scheduling_strategy=here, **options)(Mailbox).remote()
        self._look()
        return self

    def __exit__(self, *_: Any) -> None:
        import ray

        for group in self._groups.values():
            for actor in group.actors.values():
                ray.kill(actor)
        ray.kill(self._mailbox)

    def run(
        self,
        watcher: Watcher,
        *,
        without: Collection[str] = (),
        max_retries: int = 2,
        timeout_s: float | None = None,
    ) -> None:
        """Run every job but those `without`.

        A job whose worker or node is lost runs again, at most `max_retries` times; one that
        raises, or takes longer than `timeout_s`, fails.
        """
        import ray

        self._watcher, self._max_retries, self._timeout = watcher, max_retries, timeout_s
        for group in self._groups.values():
            group.waiting = deque(job for job in group.waiting if job.key not in without)
        while self._running or any(g.waiting for g in self._groups.values()):
            self._look()
            self._dispatch()
            refs = [*self._running, *self._starting]
            done, _ = ray.wait(refs, timeout=POLL_SECONDS) if refs else ([], [])
            if not refs:
                time.sleep(POLL_SECONDS)
            if time.monotonic() - self._took > POLL_SECONDS:
                self._deliver()
                self._expire()
                self._watcher.tick()
            for ref in done:
                if ref in self._starting:
                    self._set_up(ref)
                else:
                    self._finish(ref)

    def ask(self, method: str, given: Any) -> Any:
        """What a method of the work returns in the first worker that is ready.

        Raises what the method raises; `LookupError` if no worker can be set up, or it dies.
        """
        import ray

        self._watcher = _Raises()
        while not (ready := [g.actors[n] for g in self._groups.values() for n in g.idle]):
            done, _ = (
                ray.wait([*self._starting], timeout=POLL_SECONDS) if self._starting else ([], [])
            )
            for ref in done:
                self._set_up(ref)
            self._look()
        try:
            return ray.get(ready[0].ask.remote(method, given))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise LookupError(_last_line(error)) from error

    # -- workers -------------------------------------------------------------------------------

    def _look(self) -> None:
        """Start a worker wherever there is room for one and a job for it."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for group in self._groups.values():
            busy = sum(r.job.spec == group.spec for r in self._running.values())
            try:
                room = slots(group.spec)
            except Invalid as error:
                group.homeless_since = group.homeless_since or time.monotonic()
                if time.monotonic() - group.homeless_since > PATIENCE_SECONDS:
                    self._fail_waiting(group, Failure(f"no node left: {error}", str(error), "lost"))
                continue
            group.homeless_since = None
            for _ in range(min(room, len(group.waiting) + busy) - len(group.actors)):
                self._start_worker(group)

    def _start_worker(self, group: _Group) -> None:
        import ray

        spec, number = group.spec, self._workers
        self._workers += 1
        options = {"num_cpus": spec.num_cpus, "num_gpus": spec.num_gpus, "memory": spec.memory}
        # not restarted by Ray, which says so on the screen and waits for room where it was
        actor = ray.remote(max_restarts=0, **options)(Worker).remote(self._work, spec)
        group.actors[number] = actor
        self._starting[actor.ready.remote()] = group, number

    def _set_up(self, ref: Any) -> None:
        import ray

        group, number = self._starting.pop(ref)
        try:
            ray.get(ref)
            group.broken = 0
            group.idle.append(number)
        except ray.exceptions.RayError as error:
            self._drop(group, number)
            group.broken += 1
            at_work = len(group.actors) - sum(g is group for g, _ in self._starting.values())
            if group.broken < SET_UP_TRIES:
                self._looked = 0.0
            elif not at_work:  # else it is a fault of that node
                reason = f"no worker could be set up: {_last_line(error)}"
                self._fail_waiting(group, Failure(reason, str(error), "lost"))

    def _drop(self, group: _Group, number: int) -> None:
        import ray

        ray.kill(group.actors.pop(number))

    def _fail_waiting(self, group: _Group, failure: Failure) -> None:
        while group.waiting:
            self._watcher.ended(group.waiting.popleft().key, failure)

    # -- jobs ----------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        for group in self._groups.values():
            while group.idle and group.waiting:
                job, number = group.waiting.popleft(), group.idle.pop(0)
                actor = group.actors[number]
                self._watcher.started(job.key, number)
                self._runs += 1
                ref = actor.run.remote(self._runs, job.payload, self._mailbox)
                self._running[ref] = _Running(self._runs, job, number, time.monotonic())
            if group.idle and not group.waiting and self._starting:
                # others may be waiting for what these hold
                for number in group.idle:
                    self._drop(group, number)
                group.idle.clear()

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
            late = self._timeout and time.monotonic() - run.since > self._timeout
            if late and not run.timed_out:
                run.timed_out = True
                ray.kill(self._groups[run.job.spec].actors[run.worker])

    def _finish(self, ref: Any) -> None:
        import ray

        run = self._running[ref]
        key, group = run.job.key, self._groups[run.job.spec]
        emitted = math.inf
        try:
            emitted, result = ray.get(ref)
        except ray.exceptions.RayTaskError as error:  # its result cannot travel, among others
            result = Failure(_last_line(error), str(error))
        except ray.exceptions.RayError as error:  # every other says that the worker is gone
            self._deliver()
            del self._running[ref]
            self._lost(run, group, error)
            return
        if emitted > len(run.heard):
            self._deliver()
        if emitted > len(run.heard):  # the mailbox was lost, with what was in it
            with suppress(ray.exceptions.RayError):
                actor = group.actors[run.worker]
                for number, event in enumerate(ray.get(actor.emitted.remote())):
                    self._hear(run, number, event)
        del self._running[ref]
        if run.timed_out:  # it was ended all the same
            self._drop(group, run.worker)
        else:
            group.idle.append(run.worker)
        self._end(key, result)

    def _lost(self, run: _Running, group: _Group, error: Any) -> None:
        # it may still be at work, out of reach: two must not be
        self._drop(group, run.worker)
        self._looked = 0.0
        key, said = run.job.key, str(error)
        fatal = self._fatal.pop(key, None)
        if fatal and fatal.again:
            self._watcher.retried(key, fatal.reason)
            group.waiting.appendleft(run.job)
        elif fatal:
            self._end(key, Failure(fatal.reason, said, fatal.cause))
        elif run.timed_out:
            reason = f"timed out: took longer than {self._timeout:g} s"
            self._end(key, Failure(reason, said, "timeout"))
        else:
            memory = "running low on memory" in said
            reason = "out of memory on its node" if memory else "worker died"
            tried = self._retries[key] = self._retries.get(key, 0) + 1
            if tried <= self._max_retries:
                self._watcher.retried(key, reason)
                group.waiting.appendleft(run.job)
            else:
                reason = f"{reason}, {tried} times" if tried > 1 else reason
                self._end(key, Failure(reason, said, "memory" if memory else "lost"))

    def _end(self, key: str, result: Any) -> None:
        self._retries.pop(key, None)
        self._watcher.ended(key, result)


class _Raises(Watcher):
    def ended(self, key: str, result: Any) -> None:
        raise LookupError(result.reason)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
