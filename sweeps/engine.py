"""Jobs on Ray: long-lived workers, one job at a time each, events on the way. Knows no Hydra."""

from __future__ import annotations

import os
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


@contextmanager
def cluster(address: str | None = None) -> Iterator[None]:
    """Be connected to Ray: as this process is already, to `address`, or to one started here.

    A Ray that was started or joined here is left at the end. Raises `Invalid` if there is none at
    the address.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ValueError, ConnectionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise Invalid("launch.address", address, f"no Ray cluster there: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def slots(spec: Spec) -> int:
    """How many workers of this spec the cluster takes at once.

    Raises `Invalid` if no node can ever take one.
    """
    import ray

    wanted = {
        "CPU": ("num_cpus", spec.num_cpus),
        "GPU": ("num_gpus", spec.num_gpus),
        "memory": ("memory", spec.memory or 0),
    }
    asked = {r: a for r, (_, a) in wanted.items() if a}
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    for resource, amount in asked.items():
        has = max((node.get(resource, 0) for node in nodes), default=0)
        if amount > has:
            allowed = f"must be at most {has:g}, what the largest node has"
            raise Invalid(f"resources.{wanted[resource][0]}", amount, allowed)
    found = sum(min(int(node.get(r, 0) // a) for r, a in asked.items()) for node in nodes)
    if not found:
        raise Invalid("resources", asked, "must fit on one node, and no node has them all")
    return found


def run(
    jobs: Sequence[Job],
    work: Work,
    *,
    on_start: Callable[[str], None] = lambda key: None,
    on_event: Callable[[str, Any], None] = lambda key, event: None,
    on_end: Callable[[str, Any], None],
) -> None:
    """Run every job in a `cluster`; `on_end(key, result or Failure)` once each, after its events.

    Raises `Invalid` before the first job if the cluster can never satisfy a spec.
    """
    groups: dict[Spec, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.spec, []).append(job)
    workers = {spec: min(slots(spec), len(members)) for spec, members in groups.items()}
    for spec, members in groups.items():
        _run_alike(members, work, workers[spec], on_start, on_event, on_end)


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
    def __init__(self, work: Work, spec: Spec) -> None:
        self._work = work
        work.setup(spec)

    def run(self, key: str, payload: Any, mailbox: Any) -> Any:
        import ray

        sent: list[Any] = []
        try:
            result = self._work.run(payload, lambda e: sent.append(mailbox.put.remote(key, e)))
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
    idle = deque(worker.remote(work, spec) for _ in range(workers))
    waiting, running = deque(jobs), dict[Any, tuple[Any, str]]()

    def deliver() -> None:
        for key, event in ray.get(mailbox.take.remote()):
            on_event(key, event)

    try:
        while waiting or running:
            while waiting and idle:
                job, actor = waiting.popleft(), idle.popleft()
                running[actor.run.remote(job.key, job.payload, mailbox)] = (actor, job.key)
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
