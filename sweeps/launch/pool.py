"""Workers on a Ray cluster, started where there is room, reused, and replaced when lost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.launch.actors import Worker
from masksweep.sweeps.launch.cluster import Spec, worker_slots
from masksweep.sweeps.launch.job import Failure, Work

NODE_CHECK_SECONDS = 5.0
"""Seconds between two checks of the nodes of the cluster."""
MAX_SETUP_FAILURES = 3
"""How many workers of a spec may fail in a row to start while no other one works."""
MAX_WAITING_WORKERS = 100
"""How many workers may wait for nodes that an autoscaler adds, beyond those that have room."""
PATIENCE_SECONDS = 60.0
"""Seconds to wait for a new node when the last node that could hold a spec is lost."""

NoWorker = tuple[Spec, Failure]
"""A spec for which no worker can be had, and the failure of its jobs."""


@dataclass
class _WorkerGroup:
    """The workers of one spec."""

    actors: dict[int, Any] = field(default_factory=dict)
    """Handles of the actors by worker number, including those that are still starting."""
    idle: list[int] = field(default_factory=list)
    """Numbers of the workers that have no job."""
    setup_failures: int = 0
    """How many in a row could not be set up."""
    no_node_since: float | None = None
    """When no node could hold these workers any more, by `time.monotonic`; None if one can."""


class Pool:
    """The workers of an engine. A worker of one spec never runs a job of another.

    Args:
        specs: The resources of the workers, one entry for each kind.
        work: What the workers do with a job.
        joined: Whether the cluster was joined, not started here. It may have an autoscaler then,
            which adds nodes for workers that wait.

    Raises:
        Invalid: No node can hold a worker of one of the specs.
    """

    def __init__(self, specs: Sequence[Spec], work: Work, joined: bool = False) -> None:
        for spec in specs:
            worker_slots(spec)
        # waiting workers, not Ray's request_resources: Ray keeps one request for all drivers, even
        # after a driver was killed, and autoscaler v2 ignores one that is larger than its limits
        self._max_waiting = MAX_WAITING_WORKERS if joined else 0
        self._work = work
        self._groups = {spec: _WorkerGroup() for spec in specs}
        self._starting: dict[Any, tuple[Spec, int]] = {}
        self._started = 0
        self._checked_at = 0.0

    @property
    def starting(self) -> list[Any]:
        """Refs of the workers that are starting: wait for them and pass them to `set_up`."""
        return list(self._starting)

    def start_missing(self, job_counts: Mapping[Spec, int]) -> Iterator[NoWorker]:
        """Starts the workers that are missing, where there is room for them or may be soon.

        Does nothing if the nodes were checked less than `NODE_CHECK_SECONDS` ago.

        Args:
            job_counts: Number of jobs that have not ended, by spec.

        Yields:
            Each spec that no node can hold any more, with the failure.
        """
        if time.monotonic() - self._checked_at < NODE_CHECK_SECONDS:
            return
        self._checked_at = time.monotonic()
        for spec, group in self._groups.items():
            try:
                room = worker_slots(spec)
            except Invalid as error:
                group.no_node_since = group.no_node_since or time.monotonic()
                if time.monotonic() - group.no_node_since > PATIENCE_SECONDS:
                    yield spec, Failure(f"no node left: {error}", str(error), "lost")
                continue
            group.no_node_since = None
            job_count = job_counts.get(spec, 0)
            for _ in range(min(room + self._max_waiting, job_count) - len(group.actors)):
                self._start(spec, group)
            if self._max_waiting:
                self._cancel_starting(spec, len(group.actors) - job_count)

    def _cancel_starting(self, spec: Spec, number: int) -> None:
        """Ends this many of the workers that are starting, beginning with the last."""
        refs = [ref for ref, (s, _) in self._starting.items() if s == spec]
        for ref in refs[::-1][: max(number, 0)]:
            self.drop(*self._starting.pop(ref))

    def _start(self, spec: Spec, group: _WorkerGroup) -> None:
        import ray

        self._started += 1
        options = {"num_cpus": spec.num_cpus, "num_gpus": spec.num_gpus, "memory": spec.memory}
        # Ray must not restart it: that prints messages, and waits for room on the same node
        actor = ray.remote(max_restarts=0, **options)(Worker).remote(self._work, spec)
        group.actors[self._started - 1] = actor
        self._starting[actor.ready.remote()] = spec, self._started - 1

    def set_up(self, ref: Any) -> Iterator[NoWorker]:
        """Handles a worker that is ready, or that could not be set up.

        Args:
            ref: One of `starting` that has returned.

        Yields:
            The spec with the failure, if no worker of it could be set up.
        """
        import ray

        spec, number = self._starting.pop(ref)
        group = self._groups[spec]
        try:
            ray.get(ref)
            group.setup_failures = 0
            group.idle.append(number)
        except ray.exceptions.RayError as error:
            self.drop(spec, number)
            group.setup_failures += 1
            at_work = len(group.actors) - sum(s == spec for s, _ in self._starting.values())
            if group.setup_failures < MAX_SETUP_FAILURES:
                self._checked_at = 0.0
            elif not at_work:  # otherwise only this node is at fault
                reason = f"no worker could be set up: {last_line(error)}"
                yield spec, Failure(reason, str(error), "lost")

    def idle(self, spec: Spec) -> int | None:
        """Returns the number of an idle worker, or None."""
        return next(iter(self._groups[spec].idle), None)

    def take(self, spec: Spec, number: int) -> Any:
        """Returns the handle of an idle worker, and marks the worker as busy."""
        self._groups[spec].idle.remove(number)
        return self._groups[spec].actors[number]

    def actor(self, spec: Spec, number: int) -> Any:
        """Returns the handle of a worker."""
        return self._groups[spec].actors[number]

    def give_back(self, spec: Spec, number: int) -> None:
        """Marks a worker as idle."""
        self._groups[spec].idle.append(number)

    def replace(self, spec: Spec, number: int) -> None:
        """Drops a lost worker. The next call of `start_missing` starts another one."""
        self.drop(spec, number)
        self._checked_at = 0.0

    def release(self, spec: Spec) -> None:
        """Ends idle workers of a spec, if others may wait for room or nodes may be removed."""
        group = self._groups[spec]
        if self._max_waiting:
            self._cancel_starting(spec, len(group.actors))
        while group.idle and (self._starting or self._max_waiting):
            self.drop(spec, group.idle.pop())

    def drop(self, spec: Spec, number: int) -> None:
        """Kills a worker, and forgets it."""
        import ray

        # a worker that seems lost is killed too: it may still run, out of reach
        ray.kill(self._groups[spec].actors.pop(number))

    def end(self) -> None:
        """Ends all workers."""
        for spec, group in self._groups.items():
            for number in list(group.actors):
                self.drop(spec, number)
            group.idle.clear()
        self._starting.clear()


def last_line(error: Exception) -> str:
    """Returns the last line of an error's message."""
    return str(error).strip().splitlines()[-1]
