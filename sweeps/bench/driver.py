"""A sweep's driver beside the process that runs its trials: it records what that one tells."""

from __future__ import annotations

import multiprocessing
import signal
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Any

from sweeps.recorder import Recorder
from sweeps.sections import Tracking
from sweeps.spool import Spool
from sweeps.tracker import Tracker

Told = tuple[str, tuple[Any, ...]]
"""A method of the recorder, and what it is given; without a name, that the sweep has ended."""


@contextmanager
def recorder(folder: Path) -> Iterator[Recorder]:
    """Of a sweep of its own, in the folder's SQLite store."""
    name, tracking = uuid.uuid4().hex, Tracking(uri=f"sqlite:///{folder}/mlflow.db")
    with closing(Spool(folder / f"{name}.db")) as spool:
        found = Recorder(spool, tracking, name, Tracker(tracking, name))
        found.start_sweep("", [])
        found.send_left()
        yield found


class Driver:
    """The process, which records one sweep after the other in the folder's store."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._told: Queue[Told | None] = context.Queue()
        self._answer, answer = context.Pipe(duplex=False)
        self._process = context.Process(target=_record, args=(folder, self._told, answer))
        self._process.start()
        answer.close()  # so that the end of the process ends the wait for it

    def tell(self, method: str, *given: Any) -> None:
        """Have the recorder do this. Waits for nothing, as a worker does not."""
        self._told.put((method, given))

    def end_sweep(self) -> None:
        """Wait until the store has all. Raises `RuntimeError` with the reason if it has not."""
        self._told.put(("", ()))
        try:
            trouble = self._answer.recv()
        except EOFError:
            trouble = "the driver has died"
        if trouble:
            raise RuntimeError(trouble)

    def close(self) -> None:
        self._told.put(None)
        self._process.join()


def _record(folder: Path, told: Queue[Told | None], answer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the bench says when it ends
    while _sweep(folder, told, answer):
        pass


def _sweep(folder: Path, told: Queue[Told | None], answer: Connection) -> bool:
    """Record one sweep; False if there is none any more."""
    given = _next(told)
    if given is None:
        return False
    with recorder(folder) as found:
        found.start()
        while given and given[0]:
            getattr(found, given[0])(*given[1])
            given = _next(told)
        sent = found.finish(patience_s=0)
    if given:
        answer.send("" if sent else found.trouble or "; ".join(found.refused))
    return given is not None


def _next(told: Queue[Told | None]) -> Told | None:
    while True:
        try:
            return told.get(timeout=5)
        except Empty:
            parent = multiprocessing.parent_process()
            if parent is None or not parent.is_alive():
                return None
