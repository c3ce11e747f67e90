"""A sweep's driver beside the process that runs its trials: it records what that one tells.

A message is a method of the recorder and what it is given; without a name, that the sweep has
ended; an empty one, that there is no other.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.tracking.recorder import Recorder
from masksweep.sweeps.tracking.spool import Spool
from masksweep.sweeps.tracking.writer import Tracker


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
        self._told: Queue[bytes] = context.Queue()
        self._answer, answer = context.Pipe(duplex=False)
        given = folder, self._told, answer
        self._process = context.Process(target=_record, args=given, daemon=True)
        self._process.start()
        answer.close()  # so that the end of the process ends the wait for it

    def tell(self, method: str, *given: Any) -> None:
        """Have the recorder do this. Waits for nothing, as a worker does not."""
        self._told.put(pickle.dumps((method, given)))  # here, where an error is raised

    def end_sweep(self) -> None:
        """Wait until the store has all. Raises `RuntimeError` with the reason if it has not."""
        self.tell("")
        try:
            trouble = self._answer.recv()
        except EOFError:
            trouble = "the driver has died"
        if trouble:
            raise RuntimeError(trouble)

    def close(self) -> None:
        self._told.put(b"")
        self._process.join()
        if self._process.exitcode:  # nobody takes what it was told last
            self._told.cancel_join_thread()


def _record(folder: Path, told: Queue[bytes], answer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the bench says when it ends
    threading.Thread(target=_end_with_the_bench, daemon=True).start()
    while given := told.get():
        with recorder(folder) as found:
            found.start()
            while given and (call := pickle.loads(given))[0]:
                getattr(found, call[0])(*call[1])
                given = told.get()
            sent = found.finish(patience_s=0)
            answer.send("" if sent else found.trouble or "; ".join(found.refused) or "not sent")
        if not given:
            return


def _end_with_the_bench() -> None:
    bench = multiprocessing.parent_process()
    if bench is not None:
        bench.join()
        os._exit(1)
