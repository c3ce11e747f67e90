"""Trials one after the other in a process of this machine, without Ray."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from masksweep.sweeps.common import signals
from masksweep.sweeps.config.plan import Planned, packs
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.launch.cluster import Spec
from masksweep.sweeps.launch.job import Failure, Fatal, failure
from masksweep.sweeps.launch.worker import Task, TrialWork
from masksweep.sweeps.results import Report, TrialResult

POLL_SECONDS = 0.2
Event = Report | TrialResult | Failure | None
"""None is the start of a trial."""


def events(
    trials: Sequence[Trial], place: Path, logs: Path, tick: Callable[[], None]
) -> Iterator[tuple[Trial, Event]]:
    """Run the trials, those of a pack side by side; the last event of each is its end.

    The process is as a sweep's worker. Where it is lost, another one takes the rest: a pack's
    trials one by one then, a single trial once more. `place` is for checkpoints and large files.
    `tick` is called several times a second; what it raises ends the process.
    """
    waiting = deque([p.trial for p in pack] for pack in packs([Planned(t, ()) for t in trials]))
    started: set[str] = set()
    lost: set[str] = set()
    child: _Child | None = None
    try:
        while waiting:
            lot = waiting.popleft()
            by_id = {t.id: t for t in lot}
            for trial in lot:
                if trial.id not in started:
                    started.add(trial.id)
                    yield trial, None
            spec = _spec(lot[0])
            if child is None or child.spec != spec:
                if child:
                    child.end()
                child = _Child(spec, place, tick)
            found: dict[str, TrialResult | Failure] | Failure = {}
            for event in child.run([Task.of(t, logs / f"{t.id[:16]}.log") for t in lot]):
                if isinstance(event, tuple):
                    yield by_id[event[0]], event[1]
                else:
                    found = event
            if isinstance(found, dict):
                yield from ((by_id[key], each) for key, each in found.items())
                continue
            if found.cause in ("lost", "memory"):
                child.end()
                child = None
            if len(lot) > 1:
                waiting.extendleft([t] for t in reversed(lot))
            elif found.cause == "lost" and lot[0].id not in lost:
                lost.add(lot[0].id)
                waiting.appendleft(lot)
            else:
                yield lot[0], found
    finally:
        if child:
            child.end()


def _spec(trial: Trial) -> Spec:
    return Spec(1, trial.resources.num_gpus, trial.resources.memory, trial.train.threads)


class _Child:
    """A process that runs lots of trials."""

    def __init__(self, spec: Spec, place: Path, tick: Callable[[], None]) -> None:
        self.spec, self._tick = spec, tick
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, spec, str(place)), daemon=True)
        signals.start(self._process)
        theirs.close()

    def run(self, tasks: Sequence[Task]) -> Iterator[Any]:
        """(trial id, report) as they come; then results by trial id, or why there are none."""
        fatal: Fatal | None = None
        try:
            self._pipe.send(tasks)
            while True:
                while not self._pipe.poll(POLL_SECONDS):
                    self._tick()
                self._tick()
                event = self._pipe.recv()
                if isinstance(event, Fatal):
                    fatal = event
                    continue
                yield event
                if not isinstance(event, tuple):
                    return
        except (EOFError, ConnectionError):
            if fatal and not fatal.again:
                yield Failure(fatal.reason, fatal.reason, fatal.cause)
            else:
                reason = fatal.reason if fatal else "its process ended"
                yield Failure(reason, reason, "lost")

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, spec: Spec, place: str) -> None:
    # TensorFlow greets on stderr, past every setting; what goes wrong is sent to the parent
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    work = TrialWork(place, every_s=1e9)
    work.setup(spec)

    def emit(event: Any) -> None:
        if isinstance(event, Fatal) or (isinstance(event, tuple) and isinstance(event[1], Report)):
            pipe.send(event)

    with suppress(EOFError):
        while True:
            tasks = pipe.recv()
            try:
                pipe.send(work.run(tasks, emit))
            except Exception as error:
                pipe.send(failure(error))
