"""Jobs on Ray: long-lived workers, one job at a time each, events on the way. Knows no Hydra."""

from __future__ import annotations

import os
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from strategies.base import Invalid

POLL_SECONDS = 0.2
RETRIES = 2
"""How often a job is run again whose worker died."""


@dataclass(frozen=True)
class Spec:
    """What a worker is and takes; jobs of unlike specs never share one."""

    num_cpus: float = 1
    num_gpus: float = 0
    memory: int | None = None
    """Bytes."""
    threads: int = 1


@dataclass(frozen=True)
class Job:
    key: str
    payload: Any
    spec: Spec = Spec()


@dataclass(frozen=True)
class Failure:
    """A job that raised, or whose worker could not be kept alive."""

    reason: str
    traceback: str


Emit = Callable[[Any], None]


class Work(Protocol):
    """What the workers do. Travels to them by pickle."""

    def setup(self, spec: Spec) -> None:
        """Once in each worker, before its first job."""

    def run(self, payload: Any, emit: Emit) -> Any:
        """One job; what it returns goes to `on_end`, what it emits to `on_event`."""


def run(
    jobs: Sequence[Job],
    work: Work,
    *,
    on_start: Callable[[str], None],
    on_event: Callable[[str, Any], None],
    on_end: Callable[[str, Any], None],
    address: str | None = None,
) -> None:
    """Run every job; `on_end(key, result or Failure)` once for each, after all of its events.

    Joins the Ray that this process is connected to, or the one at `address`, or starts one here
    that ends with the call. Raises `Invalid` before the first job if the cluster can never satisfy
    a spec.
    """
    import ray

    own = not ray.is_initialized()
    if own:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_TQDM_PATCH_PRINT", "0")
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        groups: dict[Spec, list[Job]] = {}
        for job in jobs:
            groups.setdefault(job.spec, []).append(job)
        slots = {spec: _slots(spec) for spec in groups}
        for spec, members in groups.items():
            _run_alike(members, work, min(slots[spec], len(members)), on_start, on_event, on_end)
    finally:
        if own:
            ray.shutdown()


def _slots(spec: Spec) -> int:
    """How many workers of this spec the cluster takes at once."""
    import ray

    found = ray.cluster_resources()
    wanted = {"CPU": spec.num_cpus, "GPU": spec.num_gpus, "memory": spec.memory or 0}
    keys = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    for resource, amount in wanted.items():
        has = max((n["Resources"].get(resource, 0) for n in ray.nodes() if n["Alive"]), default=0)
        if amount > has:
            raise Invalid(f"resources.{keys[resource]}", amount, f"the largest node has {has:g}")
    return int(min(found.get(r, 0) // amount for r, amount in wanted.items() if amount))


class _Mailbox:
    """Where workers leave their events; it outlives them, so none is lost with one."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = []

    def put(self, key: str, event: Any) -> None:
        self._events.append((key, event))

    def take(self) -> list[tuple[str, Any]]:
        events, self._events = self._events, []
        return events


class _Worker:
    def __init__(self, work: Work, spec: Spec, mailbox: Any) -> None:
        self._work, self._mailbox = work, mailbox
        work.setup(spec)

    def run(self, key: str, payload: Any) -> Any:
        import ray

        sent: list[Any] = []
        try:
            result = self._work.run(
                payload, lambda e: sent.append(self._mailbox.put.remote(key, e))
            )
        except Exception as error:
            reason = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
            result = Failure(reason, traceback.format_exc())
        ray.get(sent)  # events arrive before the result does
        return result


def _run_alike(
    jobs: Sequence[Job],
    work: Work,
    workers: int,
    on_start: Callable[[str], None],
    on_event: Callable[[str, Any], None],
    on_end: Callable[[str, Any], None],
) -> None:
    import ray

    spec = jobs[0].spec
    mailbox = ray.remote(num_cpus=0)(_Mailbox).remote()
    options = {"num_cpus": spec.num_cpus, "num_gpus": spec.num_gpus, "memory": spec.memory}
    worker = ray.remote(max_restarts=-1, max_task_retries=RETRIES, **options)(_Worker)
    idle = deque(worker.remote(work, spec, mailbox) for _ in range(workers))
    waiting, running = deque(jobs), dict[Any, tuple[Any, str]]()

    def deliver() -> None:
        for key, event in ray.get(mailbox.take.remote()):
            on_event(key, event)

    try:
        while waiting or running:
            while waiting and idle:
                job, actor = waiting.popleft(), idle.popleft()
                running[actor.run.remote(job.key, job.payload)] = (actor, job.key)
                on_start(job.key)
            done, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            deliver()
            for ref in done:
                actor, key = running.pop(ref)
                try:
                    result = ray.get(ref)
                except ray.exceptions.RayError as error:
                    result = Failure(str(error).strip().splitlines()[0], str(error))
                on_end(key, result)
                idle.append(actor)
    finally:
        for actor in [*idle, *(a for a, _ in running.values()), mailbox]:
            ray.kill(actor)
