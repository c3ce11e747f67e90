"""Workers on a Ray cluster: long-lived, started wherever there is room, replaced when lost."""

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
"""How often nodes that joined or left are looked for."""
SET_UP_TRIES = 3
"""Workers in a row that may fail to start while none is at work."""
MORE = 100
"""How many workers, beyond what there is room for, may wait for nodes that an autoscaler adds."""
PATIENCE_SECONDS = 60.0
"""How long a spec may have no node when the last one that could run it is lost."""

Hopeless = tuple[Spec, Failure]
"""A spec that no worker can be had for, and why."""


@dataclass
class _Kind:
    """The workers of one spec, by number."""

    actors: dict[int, Any] = field(default_factory=dict)
    idle: list[int] = field(default_factory=list)
    broken: int = 0
    """How many in a row could not be set up."""
    homeless_since: float | None = None
    """When the last node was lost that could run them."""


class Pool:
    """Workers of some specs; those of unlike ones are never exchanged."""

    def __init__(self, specs: Sequence[Spec], work: Work, joined: bool = False) -> None:
        """A cluster that was `joined` may have an autoscaler, which sees the workers that wait.

        Raises `Invalid` if no node can satisfy a spec.
        """
        for spec in specs:
            slots(spec)
        # not request_resources: Ray keeps one for all drivers, also of one that was killed, and
        # its autoscaler v2 does nothing for one that is more than it can ever add
        self._more = MORE if joined else 0
        self._work = work
        self._kinds = {spec: _Kind() for spec in specs}
        self._starting: dict[Any, tuple[Spec, int]] = {}
        self._started = 0
        self._looked = 0.0

    @property
    def starting(self) -> list[Any]:
        """What to wait for, and to hand to `set_up`."""
        return list(self._starting)

    def look(self, wanted: Mapping[Spec, int]) -> Iterator[Hopeless]:
        """Start workers, as many as are wanted, wherever there is or may be room for one."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for spec, kind in self._kinds.items():
            try:
                room = slots(spec)
            except Invalid as error:
                kind.homeless_since = kind.homeless_since or time.monotonic()
                if time.monotonic() - kind.homeless_since > PATIENCE_SECONDS:
                    yield spec, Failure(f"no node left: {error}", str(error), "lost")
                continue
            kind.homeless_since = None
            for _ in range(min(room + self._more, wanted.get(spec, 0)) - len(kind.actors)):
                self._start(spec, kind)
            if self._more:
                self._withdraw(spec, len(kind.actors) - wanted.get(spec, 0))

    def _withdraw(self, spec: Spec, number: int) -> None:
        """End so many of those that are starting, the last ones first."""
        ours = [ref for ref, (s, _) in self._starting.items() if s == spec]
        for ref in ours[::-1][: max(number, 0)]:
            self.drop(*self._starting.pop(ref))

    def _start(self, spec: Spec, kind: _Kind) -> None:
        import ray

        self._started += 1
        options = {"num_cpus": spec.num_cpus, "num_gpus": spec.num_gpus, "memory": spec.memory}
        # not restarted by Ray, which says so on the screen and waits for room where it was
        actor = ray.remote(max_restarts=0, **options)(Worker).remote(self._work, spec)
        kind.actors[self._started - 1] = actor
        self._starting[actor.ready.remote()] = spec, self._started - 1

    def set_up(self, ref: Any) -> Iterator[Hopeless]:
        """One of those that were starting is ready, or is not to be."""
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
            elif not at_work:  # else it is a fault of that node
                reason = f"no worker could be set up: {last_line(error)}"
                yield spec, Failure(reason, str(error), "lost")

    def idle(self, spec: Spec) -> int | None:
        """The number of a worker that has nothing to do."""
        return next(iter(self._kinds[spec].idle), None)

    def take(self, spec: Spec, number: int) -> Any:
        """An idle worker, which is at work now."""
        self._kinds[spec].idle.remove(number)
        return self._kinds[spec].actors[number]

    def actor(self, spec: Spec, number: int) -> Any:
        return self._kinds[spec].actors[number]

    def give_back(self, spec: Spec, number: int) -> None:
        """It has nothing to do any more."""
        self._kinds[spec].idle.append(number)

    def replace(self, spec: Spec, number: int) -> None:
        """It is lost; another one is started soon."""
        self.drop(spec, number)
        self._looked = 0.0

    def release(self, spec: Spec) -> None:
        """End the idle ones, if others may wait for what these hold, or their nodes may go."""
        kind = self._kinds[spec]
        if self._more:
            self._withdraw(spec, len(kind.actors))
        while kind.idle and (self._starting or self._more):
            self.drop(spec, kind.idle.pop())

    def drop(self, spec: Spec, number: int) -> None:
        """End a worker."""
        import ray

        # also one that seems lost: it may be at work, out of reach
        ray.kill(self._kinds[spec].actors.pop(number))

    def end(self) -> None:
        """End all of them."""
        for spec, kind in self._kinds.items():
            for number in list(kind.actors):
                self.drop(spec, number)
            kind.idle.clear()
        self._starting.clear()


def last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
