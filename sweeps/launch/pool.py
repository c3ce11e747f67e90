"""Workers on a Ray cluster, started where there is room, reused, and replaced when lost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from masksweep.strategies.base import Invalid
from masksweep.sweeps.launch.actors import Worker
from masksweep.sweeps.launch.cluster import Spec, slots
from masksweep.sweeps.launch.job import Failure, Work

LOOK_SECONDS = 5.0
"""Seconds between two looks at the nodes of the cluster."""
SET_UP_TRIES = 3
"""How many workers of a spec may fail in a row to start while no other one works."""
MAX_WAITING_WORKERS = 100
"""How many workers may wait for nodes that an autoscaler adds, beyond those that have room."""
PATIENCE_SECONDS = 60.0
"""Seconds to wait for a new node when the last node that could hold a spec is lost."""

NoWorker = tuple[Spec, Failure]
"""A spec for which no worker can be had, and the failure of its jobs."""


@dataclass
class _Kind:
    """The workers of one spec."""

    actors: dict[int, Any] = field(default_factory=dict)
    """Handles of the actors by worker number, including those that are still starting."""
    idle: list[int] = field(default_factory=list)
    """Numbers of the workers that have no job."""
    broken: int = 0
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
            slots(spec)
        # waiting workers, not Ray's request_resources: Ray keeps one request for all drivers, even
        # after a driver was killed, and autoscaler v2 ignores one that is larger than its limits
        self._more = MAX_WAITING_WORKERS if joined else 0
        self._work = work
        self._kinds = {spec: _Kind() for spec in specs}
        self._starting: dict[Any, tuple[Spec, int]] = {}
        self._started = 0
        self._looked = 0.0

    @property
    def starting(self) -> list[Any]:
        """Refs of the workers that are starting: wait for them and pass them to `set_up`."""
        return list(self._starting)

    def look(self, wanted: Mapping[Spec, int]) -> Iterator[NoWorker]:
        """Starts the workers that are missing, where there is room for them or may be soon.

        Does nothing if the last look was less than `LOOK_SECONDS` ago.

        Args:
            wanted: Number of jobs that have not ended, by spec.

        Yields:
            Each spec that no node can hold any more, with the failure.
        """
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for spec, kind in self._kinds.items():
            try:
                room = slots(spec)
            except Invalid as error:
                kind.no_node_since = kind.no_node_since or time.monotonic()
                if time.monotonic() - kind.no_node_since > PATIENCE_SECONDS:
                    yield spec, Failure(f"no node left: {error}", str(error), "lost")
                continue
            kind.no_node_since = None
            for _ in range(min(room + self._more, wanted.get(spec, 0)) - len(kind.actors)):
                self._start(spec, kind)
            if self._more:
                self._withdraw(spec, len(kind.actors) - wanted.get(spec, 0))

    def _withdraw(self, spec: Spec, number: int) -> None:
        """Ends this many of the workers that are starting, beginning with the last."""
        refs = [ref for ref, (s, _) in self._starting.items() if s == spec]
        for ref in refs[::-1][: max(number, 0)]:
            self.drop(*self._starting.pop(ref))

    def _start(self, spec: Spec, kind: _Kind) -> None:
        import ray

        self._started += 1
        options = {"num_cpus": spec.num_cpus, "num_gpus": spec.num_gpus, "memory": spec.memory}
        # Ray must not restart it: that prints messages, and waits for room on the same node
        actor = ray.remote(max_restarts=0, **options)(Worker).remote(self._work, spec)
        kind.actors[self._started - 1] = actor
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
        kind = self._kinds[spec]
        try:
            ray.get(ref)
            kind.broken = 0
            kind.idle.append(number)
        except ray.exceptions.RayError as error:
            self.drop(spec, number)
            kind.broken += 1
            at_work = len(kind.actors) - sum(s == spec for s, _ in self._starting.values())
            if kind.broken < SET_UP_TRIES:
                self._looked = 0.0
            elif not at_work:  # otherwise only this node is at fault
                reason = f"no worker could be set up: {last_line(error)}"
                yield spec, Failure(reason, str(error), "lost")

    def idle(self, spec: Spec) -> int | None:
        """Returns the number of an idle worker, or None."""
        return next(iter(self._kinds[spec].idle), None)

    def take(self, spec: Spec, number: int) -> Any:
        """Returns the handle of an idle worker, and marks the worker as busy."""
        self._kinds[spec].idle.remove(number)
        return self._kinds[spec].actors[number]

    def actor(self, spec: Spec, number: int) -> Any:
        """Returns the handle of a worker."""
        return self._kinds[spec].actors[number]

    def give_back(self, spec: Spec, number: int) -> None:
        """Marks a worker as idle."""
        self._kinds[spec].idle.append(number)

    def replace(self, spec: Spec, number: int) -> None:
        """Drops a lost worker. The next call of `look` starts another one."""
        self.drop(spec, number)
        self._looked = 0.0

    def release(self, spec: Spec) -> None:
        """Ends idle workers of a spec, if others may wait for room or nodes may be removed."""
        kind = self._kinds[spec]
        if self._more:
            self._withdraw(spec, len(kind.actors))
        while kind.idle and (self._starting or self._more):
            self.drop(spec, kind.idle.pop())

    def drop(self, spec: Spec, number: int) -> None:
        """Kills a worker, and forgets it."""
        import ray

        # a worker that seems lost is killed too: it may still run, out of reach
        ray.kill(self._kinds[spec].actors.pop(number))

    def end(self) -> None:
        """Ends all workers."""
        for spec, kind in self._kinds.items():
            for number in list(kind.actors):
                self.drop(spec, number)
            kind.idle.clear()
        self._starting.clear()


def last_line(error: Exception) -> str:
    """Returns the last line of an error's message."""
    return str(error).strip().splitlines()[-1]
